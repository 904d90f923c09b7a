"""Mapping to very many keys: those that matter to a query one by one, all others by the groups they form."""

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

_LEAST_KEYS = 2**14  # beyond which groups of them may be made
_LEAST_PRODUCTS = 2**30  # of queries and keys, below which all are made sooner than groups
_GROUP_SIZE, _MOST_GROUPS = 100, 2048  # keys of a group on average, and groups at most
_NARROW = 32  # dimensions in which groups are made: they hold nearly all that products differ by
_SAMPLE_ROWS = 20_000  # that these dimensions are learned from
_QUERIES = 256  # of one visit; they find most in the same group, or in groups near each other
_LEAST_SHARE = 2e-3  # of the weight of any of them, from which on the keys of a group are looked at
_MOST_VISITED = 0.25  # of the keys, at most, in one visit
_PARTS = 16  # of a row, whose largest are compared first


@dataclass(frozen=True, kw_only=True, eq=False)
class Visit:
    """Products of some queries with the keys that may matter to them, and what all others add up to.

    Attributes
    ----------
    rows, columns
        (n_rows,) and (n_columns,) positions of the queries and of the keys.
    products
        (n_rows, n_columns)
    far
        (n_rows, n_groups) logarithm of the sum of exp(product) over the keys of each group, as estimated;
        -inf for groups whose keys are among the columns. Without columns if there are no groups.
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
        # Not from the logarithm of the total: of that float32 keeps too few digits once products are large.
        total = near.sum(dim=1, keepdim=True) + far.sum(dim=1, keepdim=True)
        return near.div_(total), far.div_(total)

    def entropy(self, sizes: torch.Tensor) -> torch.Tensor:
        """Return the entropy of every row in nats, (n_rows,), the keys of a group taken as equals.

        Parameters
        ----------
        sizes
            (n_groups,) keys of every group.
        """
        near, far = self.weights
        of_groups = torch.special.entr(far) + far * sizes.log()
        entropy: torch.Tensor = torch.special.entr(near).sum(dim=1) + of_groups.sum(dim=1)
        return entropy


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyGroups:
    """Keys in groups whose products with a query are much alike.

    Attributes
    ----------
    of_keys
        (n_keys,) group of every key; groups with neighbouring numbers are alike.
    means
        (n_groups, n_latent) mean of each group's keys.
    turn
        (n_latent, n_narrow) what a query is multiplied by for its few dimensions.
    variances
        (n_groups, n_narrow) of the keys in these dimensions.
    """

    of_keys: torch.Tensor
    means: torch.Tensor
    turn: torch.Tensor
    variances: torch.Tensor

    @cached_property
    def sizes(self) -> torch.Tensor:
        """Keys of every group, (n_groups,) float32."""
        return torch.bincount(self.of_keys, minlength=len(self.means)).to(self.means.dtype)

    def log_sums(self, queries: torch.Tensor) -> torch.Tensor:
        """Return the estimated logarithm of each group's sum of exp(product), (n_queries, n_groups).

        Parameters
        ----------
        queries
            (n_queries, n_latent)

        Notes
        -----
        As if the products of a query with the keys of a group had a normal distribution: their mean, and
        half of their variance.
        """
        narrow = queries @ self.turn
        sums = torch.addmm(self.sizes.log(), queries, self.means.T)
        return sums.addmm_(narrow * narrow, self.variances.T, alpha=0.5)

    def average(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean over each group, (n_groups, n_values), of values (n_keys, n_values)."""
        sums = values.new_zeros(len(self.means), values.shape[1]).index_add_(0, self.of_keys, values)
        return sums / self.sizes[:, None]

    def members(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return positions of the keys of the chosen groups, (n_groups,) booleans, group by group."""
        order, groups = self._order
        return order[chosen[groups]]

    @cached_property
    def _order(self) -> tuple[torch.Tensor, torch.Tensor]:
        groups, order = torch.sort(self.of_keys, stable=True)
        return order, groups


@dataclass(frozen=True, kw_only=True, eq=False)
class CoarseMapping:
    """The row-stochastic matrix C = softmax(Q K^T), of which the small weights are known by groups of keys.

    Attributes
    ----------
    queries, keys
        (n_queries, n_latent) and (n_keys, n_latent) embeddings, as in `cellweft.nn.mapping.Mapping`.
    groups
        Of the keys.
    least_share
        Of the weight of a query: groups that are estimated to hold more are looked at key by key.
    most_visited
        Share of the keys that is looked at for a query at most.

    Notes
    -----
    DEVIATION: STEM knows every weight by itself. Here queries that find most in the same groups are taken
    together, 256 at once, whatever the memory; the groups that hold ``least_share`` or more for any of
    them are compared key by key. The keys of all other groups count with what is estimated of them, and
    stand at their mean.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    groups: KeyGroups
    least_share: float = _LEAST_SHARE
    most_visited: float = _MOST_VISITED

    @property
    def shape(self) -> tuple[int, int]:
        """Queries and keys."""
        return len(self.queries), len(self.keys)

    def visits(self, *, least: int = 1) -> Iterator[Visit]:
        """Yield products of all queries, each query once.

        Parameters
        ----------
        least
            Keys that are looked at in each visit at least, at most all.
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
        """Logarithm of the sum of exp(Q K^T) over the keys, (n_queries,)."""
        totals = self.queries.new_zeros(len(self.queries))
        for visit in self.visits():
            totals[visit.rows] = visit.log_total
        return totals

    def _visit(self, rows: torch.Tensor, far: torch.Tensor, *, least: int) -> Visit:
        """Return the visit of some queries, given what is estimated of all groups."""
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
"""A mapping whose weights are all known, or the small ones by groups."""


def make_mapping(queries: torch.Tensor, keys: torch.Tensor) -> AnyMapping:
    """Return the mapping of queries to keys: a coarse one where both are so many that it is sooner done.

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
    """Yield products of all queries of a mapping, each query once: with all keys, or with those that matter.

    Parameters
    ----------
    mapping
        Of a `Mapping`, blocks have ``block_entries`` products, or those of one query if these are more.
    least
        Keys that are looked at in each visit at least, at most all.
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
    """Return groups of keys that have much the same products with queries such as these.

    Parameters
    ----------
    queries, keys
        (n_queries, n_latent) and (n_keys, n_latent)
    most
        Groups at most, at least 1.
    seed
        Of the keys that groups grow from.

    Notes
    -----
    K-means in the dimensions in which the products of queries and keys differ most: there the squared
    distance of two keys is the mean squared difference of their products, and 32 dimensions hold nearly all
    of it. Groups are numbered along a tree of them (Ward), so that neighbours are alike.
    """
    device, dtype = keys.device, keys.dtype
    queries, keys = _sample(queries).cpu(), keys.cpu()  # not every device has float64
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
    """Return the ``k`` largest of every row and where they are, each (n_rows, k), largest first.

    Parameters
    ----------
    products
        (n_rows, n_columns)
    k
        At most n_columns.

    Notes
    -----
    As ``products.topk(k)``, which takes most of the time once the rows are long: they are cut in threads of
    16, and the ``k`` largest stand in the ``k`` threads with the largest maxima.
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
    """Return what turns queries, and keys, into the few dimensions that their products differ by most."""
    of_queries, of_keys = queries.T @ queries / max(len(queries), 1), keys.T @ keys / max(len(keys), 1)
    values, vectors = torch.linalg.eigh(of_queries)
    values = values.clamp_min(1e-9 * values.max().clamp_min(1e-30))
    root, inverse = vectors * values.sqrt(), vectors * values.rsqrt()
    turned = torch.linalg.eigh(root.T @ of_keys @ root)[1].flip(1)[:, :_NARROW]
    return inverse @ turned, root @ turned


def _sample(rows: torch.Tensor) -> torch.Tensor:
    return rows[:: -(-len(rows) // _SAMPLE_ROWS)] if len(rows) else rows


def _means(values: torch.Tensor, groups: torch.Tensor, n_groups: int) -> torch.Tensor:
    """Return means over groups in float64, (n_groups, n_values)."""
    sums = torch.zeros(n_groups, values.shape[1], dtype=torch.float64)
    for rows, some in zip(torch.split(groups, READ_ROWS), torch.split(values, READ_ROWS), strict=True):
        sums.index_add_(0, rows, some.double())
    return sums / torch.bincount(groups, minlength=n_groups)[:, None]
