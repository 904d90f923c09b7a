"""Mapping to very many keys: exact for keys with large weights, approximated by groups for all others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from scipy.cluster.hierarchy import leaves_list, linkage

from cellweft._compute import READ_ROWS, rows_within
from cellweft.nn.mapping import Mapping
from cellweft.nn.metacells import group_cells

_LEAST_KEYS = 2**14  # with more keys than this, they may be grouped
_LEAST_PRODUCTS = 2**30  # queries x keys; below this, all products cost less than grouping
_GROUP_SIZE, _MOST_GROUPS = 100, 2048  # mean number of keys per group; most groups
_NARROW = 32  # dimensions used for grouping; they explain nearly all variance of the products
_SAMPLE_ROWS = 20_000  # from which these dimensions are learned
_QUERIES = 256  # per visit; their largest weights are in the same group, or in similar groups
_LEAST_SHARE = 2e-3  # of a query's weight; groups with more are computed key by key
_MOST_VISITED = 0.25  # largest share of the keys in one visit
_PARTS = 16  # of a row; their maxima are compared first


@dataclass(frozen=True, kw_only=True, eq=False)
class Visit:
    """Products of some queries with the keys that may matter, and the estimated sums over all others.

    Attributes
    ----------
    rows, columns
        (n_rows,) and (n_columns,) positions of the queries and of the keys.
    products
        (n_rows, n_columns)
    far
        (n_rows, n_groups) estimated logarithm of the sum of exp(product) over the keys of each group; -inf
        for groups whose keys are among the columns. There are no columns if there are no groups.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    products: torch.Tensor
    far: torch.Tensor

    @cached_property
    def log_total(self) -> torch.Tensor:
        """Logarithm of the sum of exp(product) over all keys, (n_rows,)."""
        total: torch.Tensor = self.products.logsumexp(dim=1)
        if self.far.shape[1]:
            total = torch.logaddexp(total, self.far.logsumexp(dim=1))
        return total

    @cached_property
    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights of the columns, (n_rows, n_columns), and of the groups, (n_rows, n_groups).

        The sum of both over a row is 1.
        """
        peak = self.products.amax(dim=1, keepdim=True)
        if self.far.shape[1]:
            peak = torch.maximum(peak, self.far.amax(dim=1, keepdim=True))
        near, far = ((part - peak).exp_() for part in (self.products, self.far))
        # Not computed from the logarithm of the total: for large products, float32 has too few digits.
        total = near.sum(dim=1, keepdim=True) + far.sum(dim=1, keepdim=True)
        return near.div_(total), far.div_(total)

    def entropy(self, sizes: torch.Tensor) -> torch.Tensor:
        """Return the entropy of each row in nats, (n_rows,), with equal weights for all keys of a group.

        Parameters
        ----------
        sizes
            (n_groups,) number of keys in each group.
        """
        near, far = self.weights
        of_groups = torch.special.entr(far) + far * sizes.log()
        entropy: torch.Tensor = torch.special.entr(near).sum(dim=1) + of_groups.sum(dim=1)
        return entropy


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyGroups:
    """Keys in groups; the keys of a group have similar products with any query.

    Attributes
    ----------
    of_keys
        (n_keys,) group of each key; groups with neighbouring numbers are similar.
    means
        (n_groups, n_latent) mean of each group's keys.
    turn
        (n_latent, n_narrow) projection of queries to the dimensions used for grouping.
    variances
        (n_groups, n_narrow) variances of the keys in these dimensions.
    """

    of_keys: torch.Tensor
    means: torch.Tensor
    turn: torch.Tensor
    variances: torch.Tensor

    @cached_property
    def sizes(self) -> torch.Tensor:
        """Number of keys in each group, (n_groups,) float32."""
        return torch.bincount(self.of_keys, minlength=len(self.means)).to(self.means.dtype)

    def log_sums(self, queries: torch.Tensor) -> torch.Tensor:
        """Return the estimated logarithm of each group's sum of exp(product), (n_queries, n_groups).

        Parameters
        ----------
        queries
            (n_queries, n_latent)

        Notes
        -----
        The products of a query with the keys of a group are assumed to be normally distributed: the estimate
        is log(size) plus their mean plus half of their variance.
        """
        narrow = queries @ self.turn
        sums = torch.addmm(self.sizes.log(), queries, self.means.T)
        return sums.addmm_(narrow * narrow, self.variances.T, alpha=0.5)

    def average(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean over each group, (n_groups, n_values), of values (n_keys, n_values)."""
        sums = values.new_zeros(len(self.means), values.shape[1]).index_add_(0, self.of_keys, values)
        return sums / self.sizes[:, None]

    def members(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the positions of all keys of the ``chosen`` groups, (n_groups,) booleans, group by group."""
        order, groups = self._order
        return order[chosen[groups]]

    @cached_property
    def _order(self) -> tuple[torch.Tensor, torch.Tensor]:
        groups, order = torch.sort(self.of_keys, stable=True)
        return order, groups


@dataclass(frozen=True, kw_only=True, eq=False)
class CoarseMapping:
    """The row-stochastic matrix C = softmax(Q K^T), with small weights approximated by groups of keys.

    Attributes
    ----------
    queries, keys
        (n_queries, n_latent) and (n_keys, n_latent) embeddings, as in `cellweft.nn.mapping.Mapping`.
    groups
        Groups of the keys.
    least_share
        Share of a query's weight. Groups with a larger estimated share are computed key by key.
    most_visited
        Largest share of the keys that is computed exactly for a query.

    Notes
    -----
    DEVIATION: STEM computes every weight. Here, queries with their largest weights in the same groups are
    processed together, always 256 at once. Groups with at least ``least_share`` of the weight of any of these
    queries are computed key by key. For all other groups, the weight is estimated, and the mean key replaces
    each key.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    groups: KeyGroups
    least_share: float = _LEAST_SHARE
    most_visited: float = _MOST_VISITED

    @property
    def shape(self) -> tuple[int, int]:
        """Number of queries, and of keys."""
        return len(self.queries), len(self.keys)

    def visits(self, *, least: int = 1) -> Iterator[Visit]:
        """Yield the visits that cover all queries, each query once.

        Parameters
        ----------
        least
            Smallest number of keys per visit, at most all keys.
        """
        blocks = torch.split(self.queries, READ_ROWS)
        best = torch.cat([self.groups.log_sums(block).argmax(dim=1) for block in blocks])
        order = torch.argsort(best, stable=True)
        for rows in torch.split(order, _QUERIES) if len(order) else ():
            yield self._visit(rows, self.groups.log_sums(self.queries[rows]), least=least)

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        """Return C V, (n_queries, n_values), of V (n_keys, n_values)."""
        pulled = self.queries.new_zeros(len(self.queries), values.shape[1])
        means = self.groups.average(values)
        for visit in self.visits():
            near, far = visit.weights
            pulled[visit.rows] = near @ values[visit.columns] + far @ means
        return pulled

    def apply_transpose(self, values: torch.Tensor) -> torch.Tensor:
        """Return C^T V, (n_keys, n_values), of V (n_queries, n_values)."""
        pushed = self.queries.new_zeros(len(self.keys), values.shape[1])
        spread = self.queries.new_zeros(len(self.groups.means), values.shape[1])
        for visit in self.visits():
            near, far = visit.weights
            pushed[visit.columns] += near.T @ values[visit.rows]
            spread += far.T @ values[visit.rows]
        return pushed + (spread / self.groups.sizes[:, None])[self.groups.of_keys]

    def topk(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights and positions of the ``k`` keys with the largest weights, each (n_queries, k)."""
        weights = self.queries.new_zeros(len(self.queries), k)
        indices = torch.zeros((len(self.queries), k), dtype=torch.int64, device=self.queries.device)
        for visit in self.visits(least=k):
            places = largest(visit.products, k)[1]
            weights[visit.rows] = visit.weights[0].gather(1, places)
            indices[visit.rows] = visit.columns[places]
        return weights, indices

    @cached_property
    def log_total(self) -> torch.Tensor:
        """Logarithm of the sum of exp(Q K^T) over all keys, (n_queries,)."""
        totals = self.queries.new_zeros(len(self.queries))
        for visit in self.visits():
            totals[visit.rows] = visit.log_total
        return totals

    def _visit(self, rows: torch.Tensor, far: torch.Tensor, *, least: int) -> Visit:
        """Return the visit of some queries, given the estimates for all groups."""
        shares = torch.softmax(far, dim=1).amax(dim=0)
        order = torch.argsort(shares, descending=True, stable=True)
        seen = self.groups.sizes[order].cumsum(dim=0)
        is_visited = (shares[order] > self.least_share) & (seen <= self.most_visited * len(self.keys))
        is_visited |= seen - self.groups.sizes[order] < least
        chosen = torch.zeros_like(is_visited)
        chosen[order] = is_visited
        columns = self.groups.members(chosen)
        far = far.masked_fill(chosen, -torch.inf)
        return Visit(rows=rows, columns=columns, products=self.queries[rows] @ self.keys[columns].T, far=far)


AnyMapping: TypeAlias = Mapping | CoarseMapping
"""An exact mapping, or one with small weights approximated by groups."""


def make_mapping(queries: torch.Tensor, keys: torch.Tensor) -> AnyMapping:
    """Return the mapping of queries to keys: approximate if there are so many that this is faster.

    Parameters
    ----------
    queries, keys
        (n_queries, n_latent) and (n_keys, n_latent) embeddings, float32, on one device.
    """
    if len(keys) <= _LEAST_KEYS or len(queries) * len(keys) <= _LEAST_PRODUCTS:
        return Mapping(queries=queries, keys=keys)
    n_groups = min(len(keys) // _GROUP_SIZE, _MOST_GROUPS)
    return CoarseMapping(queries=queries, keys=keys, groups=group_keys(queries, keys, most=n_groups))


def visits_of(mapping: AnyMapping, *, least: int = 1) -> Iterator[Visit]:
    """Yield visits of all queries of a mapping, each query once: with all keys, or with those that matter.

    Parameters
    ----------
    mapping
        For a `Mapping`, a visit has ``block_entries`` products, or those of one query if these are more.
    least
        Smallest number of keys per visit, at most all keys.
    """
    if isinstance(mapping, CoarseMapping):
        yield from mapping.visits(least=least)
        return
    device = mapping.queries.device
    columns = torch.arange(len(mapping.keys), device=device)
    rows = torch.arange(len(mapping.queries), device=device)
    for some in torch.split(rows, rows_within(mapping.block_entries, len(columns))):
        queries = mapping.queries[some]
        yield Visit(
            rows=some, columns=columns, products=queries @ mapping.keys.T, far=queries.new_zeros(len(some), 0)
        )


def group_keys(queries: torch.Tensor, keys: torch.Tensor, *, most: int, seed: int = 0) -> KeyGroups:
    """Return groups of keys that have similar products with queries such as these.

    Parameters
    ----------
    queries, keys
        (n_queries, n_latent) and (n_keys, n_latent)
    most
        Largest number of groups, at least 1.
    seed
        Seed of the draw of initial centres.

    Notes
    -----
    K-means in the dimensions along which the products of queries and keys vary most. There, the squared
    distance of two keys is the mean squared difference of their products; 32 dimensions explain nearly all of
    it. Groups are numbered in the leaf order of a Ward tree, so that neighbouring groups are similar.
    """
    device, dtype = keys.device, keys.dtype
    queries, keys = _sample(queries).cpu(), keys.cpu()  # some devices lack float64
    drawn = _sample(keys).double()
    middle = drawn.mean(dim=0)
    turn, back = _narrow(queries.double(), drawn - middle)
    narrow = torch.cat(
        [(block - middle) @ back for block in torch.split(keys, READ_ROWS)]
    )  # n_keys x n_narrow
    grouped = group_cells(narrow.float().numpy(), most=most, seed=seed)
    of_keys = torch.arange(len(keys)) if grouped is None else torch.from_numpy(grouped.groups)
    n_groups = int(of_keys.max()) + 1
    if n_groups > 2:
        tree = linkage(_means(narrow, of_keys, n_groups).numpy(), "ward")
        of_keys = torch.from_numpy(np.argsort(leaves_list(tree)))[of_keys]
    centres = _means(narrow, of_keys, n_groups)
    squares = _means(narrow**2, of_keys, n_groups) - centres**2
    return KeyGroups(
        of_keys=of_keys.to(device),
        means=_means(keys, of_keys, n_groups).to(device, dtype),
        turn=turn.to(device, dtype),
        variances=squares.clamp_min_(0).to(device, dtype),
    )


def largest(products: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ``k`` largest values of each row and their positions, each (n_rows, k), largest first.

    Parameters
    ----------
    products
        (n_rows, n_columns)
    k
        At most n_columns.

    Notes
    -----
    The same as ``products.topk(k)``, which is slow for long rows. Here, rows are cut into parts of 16, and
    the ``k`` largest values are in the ``k`` parts with the largest maxima.
    """
    n_rows, n_columns = products.shape
    width = n_columns // _PARTS
    if width <= 2 * k:
        values, places = products.topk(k, dim=1)
        return values, places
    threads = products[:, : width * _PARTS].view(n_rows, _PARTS, width)
    best = threads.amax(dim=1).topk(k, dim=1, sorted=False)[1]  # n_rows x k
    starts = torch.arange(_PARTS, device=products.device) * width
    candidates = (best[:, None, :] + starts[:, None]).flatten(1)
    rest = torch.arange(width * _PARTS, n_columns, device=products.device).expand(n_rows, -1)
    candidates = torch.cat([candidates, rest], dim=1)
    values, order = products.gather(1, candidates).topk(k, dim=1)
    return values, candidates.gather(1, order)


def _narrow(queries: torch.Tensor, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the projections of queries and of keys to the dimensions along which products vary most."""
    of_queries, of_keys = queries.T @ queries / max(len(queries), 1), keys.T @ keys / max(len(keys), 1)
    values, vectors = torch.linalg.eigh(of_queries)
    values = values.clamp_min(1e-9 * values.max().clamp_min(1e-30))
    root, inverse = vectors * values.sqrt(), vectors * values.rsqrt()
    turned = torch.linalg.eigh(root.T @ of_keys @ root)[1].flip(1)[:, :_NARROW]
    return inverse @ turned, root @ turned


def _sample(rows: torch.Tensor) -> torch.Tensor:
    return rows[:: -(-len(rows) // _SAMPLE_ROWS)] if len(rows) else rows


def _means(values: torch.Tensor, groups: torch.Tensor, n_groups: int) -> torch.Tensor:
    """Return the mean of each group in float64, (n_groups, n_values)."""
    sums = torch.zeros(n_groups, values.shape[1], dtype=torch.float64)
    for rows, some in zip(torch.split(groups, READ_ROWS), torch.split(values, READ_ROWS), strict=True):
        sums.index_add_(0, rows, some.double())
    return sums / torch.bincount(groups, minlength=n_groups)[:, None]
