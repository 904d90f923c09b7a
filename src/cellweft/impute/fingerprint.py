"""Fingerprints of data and models, to check that a resumed run has the same inputs."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cellweft._errors import InputError, arg, sentence
from cellweft._model_folder import ModelFolder
from cellweft._provenance import versions
from cellweft.data._pair import Pair
from cellweft.data.digest import digest_of, values_digest
from cellweft.genes.network import Network

_SAME_CELLS = 1e-5  # above the difference of sums in another order or precision
_NORMALISATIONS: dict[str, dict[Any, str]] = {
    "scale": {"raw": "counts", "normalised": "normalised values", "log": "logarithms"},
    "size_factor": {True: "counts with size factors", False: "counts without size factors"},
}


def machine_mark() -> dict[str, Any]:
    """Return all that affects the last bits of a fit, except data and settings, by name."""
    return {**versions(), "threads": torch.get_num_threads()}


def data_mark(pair: Pair) -> dict[str, str]:
    """Return texts that identify a pair, by name. Both sides are read, unless this was done before."""
    about = pair.st_labels, pair.slices, pair.coordinates, np.asarray(pair.st.obs_names, dtype=object)
    return {
        "reference": values_digest(pair.sc),
        "spatial data": digest_of(values_digest(pair.st), *about),
        "panel": digest_of(pair.shared_genes),
    }


def model_mark(folder: ModelFolder) -> str:
    """Return a text that identifies a model."""
    tensors = [part for name in sorted(folder.tensors) for part in (name, folder.tensors[name].cpu().numpy())]
    genes = [part for name, column in folder.genes.items() for part in (str(name), column.to_numpy())]
    return digest_of(json.dumps(folder.config, sort_keys=True, default=str), *tensors, *genes)


def reference_mark(pair: Pair) -> str:
    """Return a text that identifies a reference: size, genes in order, scale, batches."""
    genes = zlib.crc32("\n".join(pair.sc.input_names.tolist()).encode())
    mark = (
        f"{pair.sc.n_cells:,} cells x {pair.sc.n_genes:,} genes ({genes:08x}), scaled to {pair.sc.target:.6g}"
    )
    batches = pair.sc.batches
    if batches is None:
        return mark
    digest = digest_of(batches.codes, batches.names)[:8]
    return f"{mark}, {len(batches.names):,} batches of obs[{batches.column!r}] ({digest})"


def cells_mark(pair: Pair) -> float:
    """Return a number that identifies the cells of a reference, in order, by their totals."""
    totals = pair.sc.totals
    return float(totals @ np.sin(np.arange(1, len(totals) + 1)) / max(totals.sum(), 1e-300))


def reading_of(pair: Pair) -> dict[str, str | None]:
    """Return how the values of the reference were read, by the arguments of `cellweft.pair`."""
    reference = pair.findings["reference"]
    return {
        "size_factor": reference["size_factor"],
        "reference_batch": reference.get("batch") or None,
        "sc_layer": reference["layer"],
        "sc_scale": pair.sc.judgement.scale,
    }


def check_data(
    pair: Pair,
    *,
    panel: NDArray[np.str_],
    reference: str,
    cells: float | None = None,
    reading: Mapping[str, str | None] | None = None,
) -> None:
    """Raise `InputError` if the panel or reference of a pair differs from those of the fit.

    Parameters
    ----------
    pair
        The pair.
    panel, reference
        Panel of the fit, and its reference, from `reference_mark`.
    cells
        Reference cells of the fit, from `cells_mark`; None if unknown.
    reading
        How the reference of the fit was read, from `reading_of`; None if unknown.
    """
    if not np.array_equal(pair.shared_genes, panel):
        n_known = int(np.isin(pair.shared_genes, panel).sum())
        raise InputError(
            "pair",
            expected=f"the panel of {len(panel)} genes that the model was fitted to",
            got=f"{len(pair.shared_genes)} shared genes, {n_known} of them on that panel",
            fix="Pass the pair of the fit, parts of its cells, or other cells with pair.panel(genes).",
        )
    if reference_mark(pair) != reference:
        now = reading_of(pair)
        other = [name for name, value in (reading or {}).items() if name in now and now[name] != value]
        fix: str = "Create the pair with that reference, read in the same way, or fit again."
        if other and reading is not None:
            ways = [arg(name, reading[name]) for name in other]
            places = ", ".join(["{}"] * len(ways))
            fix = sentence(f"Create the pair in the same way as for the fit, with {places}.", *ways)
        raise InputError(
            "pair",
            expected=f"the reference that the model was fitted with, {reference}",
            got=f"a different reference, {reference_mark(pair)}",
            fix=fix,
        )
    if cells is not None and abs(cells_mark(pair) - cells) > _SAME_CELLS:
        raise InputError(
            "pair",
            expected="the reference that the model was fitted with, with its cells in the same order",
            got=f"{pair.sc.n_cells:,} different cells, or a different order",
            fix="Create the pair with that reference, or fit again.",
        )


def spatial_mark(pair: Pair) -> dict[str, Any]:
    """Return how the spatial values of a fit were normalised; other tissues must be normalised likewise."""
    side = pair.st
    return {"scale": side.scale, "size_factor": side.has_sizes, "median_total": float(side.target)}


def saved_marks(config: Mapping[str, Any]) -> tuple[dict[str, Any] | None, float | None]:
    """Return the `spatial_mark` and `cells_mark` of a saved fit; None if unknown.

    Parameters
    ----------
    config
        Configuration in the model's folder.

    Raises
    ------
    ValueError, TypeError, KeyError
        The values are not valid marks.
    """
    spatial, cells = config.get("spatial"), config.get("reference_cells")
    if spatial is not None:
        total = float(spatial["median_total"])
        if not total > 0:
            raise ValueError(f"median_total: expected a number above zero, got {total}")
        reading = {"scale": str(spatial["scale"]), "size_factor": bool(spatial["size_factor"])}
        spatial = reading | {"median_total": total}
    return spatial, None if cells is None else float(cells)


def normalised_as(pair: Pair, mark: Mapping[str, Any] | None) -> Pair:
    """Return a pair with spatial counts normalised to the depth of the tissue of a fit.

    Parameters
    ----------
    pair
        A pair with any spatial cells.
    mark
        The result of `spatial_mark` for the fit; None if the model does not contain it.

    Raises
    ------
    InputError
        The scale of the spatial values, or the kind of their sizes, differs.

    Notes
    -----
    Normalised to its own median total, a tissue with three times the depth would appear to express three
    times as much, and its imputed counts would have the depth of the tissue of the fit.
    """
    if mark is None:
        return pair
    now = spatial_mark(pair)
    for name, kinds in _NORMALISATIONS.items():
        if now[name] != mark[name]:
            expected, got = (kinds.get(reading[name], str(reading[name])) for reading in (mark, now))
            raise InputError(
                "pair",
                expected=f"spatial data of {expected}, as the model was fitted to",
                got=got,
                fix="Create the pair with values of that kind, or fit again.",
            )
    side, target = pair.st, float(mark["median_total"])
    if side.scale != "raw" or side.target == target:
        return pair
    depth = side.target * side.depth / target
    return dataclasses.replace(pair, st=dataclasses.replace(side, target=target, depth=depth))


def data_like(known: Pair, pair: Pair | None) -> Pair:
    """Return a pair for a model, normalised like the pair of the fit; by default the pair of the fit.

    Parameters
    ----------
    known
        Pair of the fit.
    pair
        A pair with the same reference and panel, and any spatial cells; or None.

    Raises
    ------
    InputError
        The panel, reference or scale differs.
    """
    if pair is None or pair is known:
        return known
    mark, cells = reference_mark(known), cells_mark(known)
    check_data(pair, panel=known.shared_genes, reference=mark, cells=cells)
    return normalised_as(pair, spatial_mark(known))


def network_digests(network: Network) -> dict[str, str]:
    """Return a text for each given gene relation that identifies its values.

    Parameters
    ----------
    network
        Protein embeddings, gene sets and edges, if given.
    """
    embedding, sets, edges = network.embedding, network.gene_sets, network.edges
    contents = {
        "embedding": embedding and (embedding.genes, embedding.values),
        "gene_sets": sets and (sets.genes, sets.members.data, sets.members.indices, sets.members.indptr),
        "edges": edges and (edges.genes, edges.pairs, edges.weights),
    }
    return {name: digest_of(*parts) for name, parts in contents.items() if parts}
