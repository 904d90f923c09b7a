"""Integrated gradients: the contribution of each input to a function's value, with the completeness gap."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch.autograd.function import once_differentiable

from cellweft._errors import check_range, require
from cellweft._typing import DoubleArray, FloatArray
from cellweft.nn.mapping import BLOCK_ENTRIES, tiles

PathFunction: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps points (n_points, n_genes), and the input row of each, (n_points,), to one number per point,
(n_points,). The number of a point does not depend on other points."""

Explain: TypeAlias = Literal["product", "weight", "log weight"]
"""The quantity of a mapping to explain: the product of the two embeddings, which the paper used to select
genes; the weight, as in the paper's text; or the natural logarithm of the weight."""

_ROUNDING = 2e-6  # relative to a value; a smaller gap is due to float32, and more steps do not reduce it


@dataclass(frozen=True, kw_only=True, eq=False)
class PathAttributions:
    """The contribution of each input to the value of a function, relative to a baseline.

    Attributes
    ----------
    attributions
        (n_rows, n_genes), in the unit of the function.
    explained
        (n_rows,) F(x) - F(baseline), the difference explained by the attributions of a row.
    gap
        (n_rows,) completeness gap, at least 0: the difference between `explained` and the sum of the row's
        attributions.
    """

    attributions: FloatArray
    explained: DoubleArray
    gap: DoubleArray


def integrated_gradients(
    function: PathFunction,
    inputs: torch.Tensor,
    *,
    baseline: float | torch.Tensor = 0.0,
    steps: int = 50,
    most_steps: int = 6400,
    tolerance: float = 0.01,
    block: int = 2048,
) -> PathAttributions:
    """Attribute the value of a function to its inputs, by the gradients along a path from a baseline.

    Parameters
    ----------
    function
        Scalar function of a row, differentiable.
    inputs
        (n_rows, n_genes), float32; not changed.
    baseline
        Start of the path: a number, (n_genes,) or (n_rows, n_genes).
    steps
        Number of points on the path, and on each part that is refined; at least 1.
    most_steps
        Finest division, as the number of points on the whole path, at least ``steps``. Parts are halved as
        often as this allows; the remaining gap is reported.
    tolerance
        Largest accepted gap of a row, relative to the explained difference; at least 0.
    block
        Points per evaluation.

    Returns
    -------
    Attributions, explained differences and gaps. They do not depend on other rows, and on ``block`` only
    through rounding in float32.

    Raises
    ------
    MissingExtraError
        captum is not installed.
    SettingError
        A number out of range.

    Notes
    -----
    Sundararajan et al. 2017 (ICML, 3319-3328), computed by captum: (x - x') times the integral of dF(x' + a
    (x - x'))/dx over a from 0 to 1, by Gauss-Legendre quadrature. A straight path can be divided into parts.
    Their attributions add up, and each part has its own completeness gap. Only parts with a large gap are
    halved, each half with ``steps`` points again. Points therefore become dense where the slope changes:
    sharply for a softmax, and at many points for a network of rectified units. The accepted gap of a part is
    proportional to the root of its length, because gaps have either sign. The gap of the whole row is
    returned.

    Examples
    --------
    >>> found = integrated_gradients(lambda points, rows: points[:, 0] ** 2, torch.tensor([[3.0, 5.0]]))
    >>> found.attributions.round(3), found.explained
    (array([[9., 0.]], dtype=float32), array([9.]))
    """
    check_range("steps", steps, low=1, integer=True)
    check_range("most_steps", most_steps, low=steps, integer=True)
    check_range("tolerance", tolerance, low=0, high=1e6)
    check_range("block", block, low=1, integer=True)
    way = _Way(function=function, inputs=inputs, baseline=baseline, steps=steps, block=block)
    end, begin = way.values(inputs), way.values(way.origin)
    explained = end - begin
    floor = _ROUNDING * torch.maximum(end.abs(), begin.abs())
    total = torch.zeros_like(way.origin)  # (n_rows, n_genes)
    rows = torch.arange(len(inputs), device=inputs.device)
    parts = torch.zeros_like(rows)  # position of the part, of 2**level
    last = int(math.log2(most_steps / steps))
    for level in range(last + 1):
        rough = [rows[:0]]
        for pick in torch.split(torch.arange(len(rows), device=rows.device), max(block // steps, 1)):
            attributed, gaps = way.part(rows[pick], parts[pick], level=level)
            allowed = torch.maximum(tolerance * explained.abs() * 0.5 ** (level / 2), floor)[rows[pick]]
            good = (gaps <= allowed) | (level == last)
            total.index_add_(0, rows[pick][good], attributed[good])
            rough.append(pick[~good])
        again = torch.cat(rough)
        rows, parts = rows[again].repeat_interleave(2), 2 * parts[again].repeat_interleave(2)
        parts[1::2] += 1
        if len(rows) == 0:
            break
    gap = (total.sum(dim=1, dtype=torch.float64) - explained).abs()
    return PathAttributions(
        attributions=total.cpu().numpy(), explained=explained.cpu().numpy(), gap=gap.cpu().numpy()
    )


class _Way:
    """Straight paths from a baseline to rows of inputs, and a function on them."""

    def __init__(
        self,
        *,
        function: PathFunction,
        inputs: torch.Tensor,
        baseline: float | torch.Tensor,
        steps: int,
        block: int,
    ) -> None:
        captum = require("captum", "explain")  # imported here, as it loads matplotlib
        self.function, self.inputs, self.steps, self.block = function, inputs.detach(), steps, block
        self.origin = torch.as_tensor(baseline, dtype=inputs.dtype, device=inputs.device).expand_as(inputs)
        self.captum = captum.attr.IntegratedGradients(function)

    def values(self, points: torch.Tensor) -> torch.Tensor:
        """Return the function at one point per row, (n_rows,) float64."""
        values = torch.empty(len(points), dtype=torch.float64, device=points.device)
        with torch.no_grad():
            for rows in torch.split(torch.arange(len(points), device=points.device), self.block):
                values[rows] = self.function(points[rows], rows).double()
        return values

    def part(
        self, rows: torch.Tensor, parts: torch.Tensor, *, level: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the attributions of a part of each row's path, (n, n_genes), and their gaps, (n,)."""
        if len(rows) == 0:
            return self.inputs[:0], self.origin.new_zeros(0)
        origin, inputs = self.origin[rows], self.inputs[rows]
        start, stop = ((parts + end)[:, None] * 0.5**level for end in (0, 1))
        attributed, gaps = self.captum.attribute(
            torch.lerp(origin, inputs, stop.to(inputs.dtype)),
            baselines=torch.lerp(origin, inputs, start.to(inputs.dtype)),
            additional_forward_args=(rows,),
            n_steps=self.steps,
            internal_batch_size=max(self.block, len(rows)),
            return_convergence_delta=True,
        )
        return attributed, gaps.abs()


def mapping_weight(
    queries_of: Callable[[torch.Tensor], torch.Tensor],
    keys: torch.Tensor,
    target: torch.Tensor,
    *,
    what: Explain = "weight",
    tile_entries: int = BLOCK_ENTRIES,
) -> PathFunction:
    """Return a function that computes the mapping weight of each row for its target.

    Parameters
    ----------
    queries_of
        Differentiable function from values (n_points, n_genes) to queries (n_points, n_latent).
    keys
        (n_keys, n_latent), on the device of the queries.
    target
        (n_rows,) position of each row's key m, constant along the path.
    what
        "weight": F(x) = softmax(queries(x) K^T)_m, as in the paper ("Attribution function"); "log weight",
        its natural logarithm, which does not flatten out where the weight is near 0 or 1; or "product": F(x)
        = queries(x) k_m, which does not depend on other keys.
    tile_entries
        Largest number of products in memory.

    Returns
    -------
    A function of points and their rows.

    Notes
    -----
    The gradient does not need the weights of all keys in memory: d log C_m / dq = k_m - sum_j C_j k_j, and
    the second term is summed tile by tile, together with the weights.
    """

    def weight(points: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        queries = queries_of(points)
        if what == "product":
            return (queries * keys[target[rows]]).sum(dim=1)
        logarithm: torch.Tensor = _LogWeight.apply(queries, keys, target[rows], tile_entries)  # type: ignore[no-untyped-call]
        return logarithm if what == "log weight" else logarithm.exp()

    return weight


class _LogWeight(torch.autograd.Function):
    """Log softmax(Q K^T) at one key per query; differentiable by Q, over tiles."""

    @staticmethod
    def forward(
        ctx: Any, queries: torch.Tensor, keys: torch.Tensor, target: torch.Tensor, entries: int
    ) -> torch.Tensor:
        total = queries.new_full((len(queries),), -torch.inf)  # log of the sum over keys
        centre = torch.zeros_like(queries)  # sum_j C_j k_j
        for rows, columns in tiles(len(queries), len(keys), entries, most_keys=max(entries, 1)):
            products = queries[rows] @ keys[columns].T
            grown = torch.logaddexp(total[rows], torch.logsumexp(products, dim=1))
            if ctx.needs_input_grad[0]:
                weights = products.sub_(grown[:, None]).exp_()
                centre[rows] = centre[rows] * (total[rows] - grown).exp()[:, None] + weights @ keys[columns]
            total[rows] = grown
        ctx.save_for_backward(keys[target] - centre)
        return (queries * keys[target]).sum(dim=1) - total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient[:, None] * slope, None, None, None
