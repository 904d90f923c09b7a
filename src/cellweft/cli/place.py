"""``cellweft place``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellweft._compute import parse_memory
from cellweft._errors import SettingError, arg
from cellweft._typing import PlacerPreset
from cellweft.cli import options
from cellweft.cli.console import cautions_of, running
from cellweft.cli.parsing import check_device, read_genes, read_settings
from cellweft.data.io.keys import CONFIDENCE, SPREAD

if TYPE_CHECKING:
    from anndata import AnnData

    from cellweft.place.placement import Placement


def place(
    sc: options.Reference,
    st: options.Spatial,
    *,
    output: options.Output,
    spots: Annotated[Path | None, typer.Option(metavar="FILE")] = None,
    genes: Annotated[str | None, typer.Option(metavar="NAMES|FILE")] = None,
    neighbors: Annotated[int, typer.Option(min=0)] = 15,
    no_embedding: bool = False,
    memory: options.Memory = "4GB",
    preset: PlacerPreset = "auto",
    settings: options.Settings = None,
    save_model: options.SaveModel = None,
    overwrite: options.Overwrite = False,
    data: options.PairOptions,
    run: options.RunOptions,
) -> None:
    """Estimate where each cell came from in the tissue, and which cell types each spot contains.

    Parameters
    ----------
    output
        Output for the placed cells: a .zarr store or an .h5ad file.
    spots
        Output for the spots, with their composition by cell type and the genes of --genes: a .zarr store or
        an .h5ad file.
    genes
        Genes to transfer from the cells to the spots: names separated by commas, or a text file with one name
        per line.
    neighbors
        Number of neighbours of each cell in the graph of the placed cells; 0 for no graph.
    no_embedding
        Do not write the embeddings of cells and spots.
    preset
        The method: cellweft's default (auto), or STEM as published (stem).
    settings
        Change a setting of the method. May be repeated.
    sc, st, memory, save_model, overwrite, data, run
        Options that are shared by several commands.
    """
    with running(run) as screen:
        from cellweft.data.io.atomic_output import RESULT_SUFFIXES, check_apart, check_outputs

        outputs = {"output": (output, RESULT_SUFFIXES), "spots": (spots, RESULT_SUFFIXES)}
        targets = check_outputs({**outputs, "save_model": (save_model, "model")}, overwrite=overwrite)
        check_apart(targets, [sc, st])
        screen.hold(*targets)
        parse_memory(memory)
        names, chosen = _asked_genes(genes, spots), read_settings(preset, settings or [])
        check_device(run.device)
        from cellweft.data.io.write import write_anndata
        from cellweft.place.placer import Placer

        placer = Placer(preset=preset, settings=chosen, seed=run.seed, device=run.device)
        pair = data.pair(sc, st, output, spots, save_model)
        plan = placer.plan(pair=pair, memory=memory)
        pair.find_genes(names)
        screen.announce(pair, str(plan))
        with screen.progress() as progress:
            placement = placer.fit(pair, progress=progress).place(progress=progress)
            placed = placement.to_anndata(neighbors=neighbors, embedding=not no_embedding, progress=progress)
            of_spots = spots and placement.to_anndata(
                of="spots", genes=names, embedding=not no_embedding, memory=memory, progress=progress
            )
            write_anndata(placed, output, overwrite=overwrite)
            if spots is not None:
                write_anndata(of_spots, spots, overwrite=overwrite)
            model = save_model and placer.save(save_model, overwrite=overwrite)
        said, summary = _made(placed, placement)
        paths = {"output": output, "spots": spots, "model": model}
        record = {"command": "place", **paths, **summary, "plan": asdict(plan), "cautions": cautions_of(pair)}
        screen.finish(f"Placed {said} -> {output}{'' if spots is None else f', {spots}'}", record)


def _asked_genes(genes: str | None, spots: Path | None) -> list[str]:
    """Return the genes to transfer to the spots."""
    if genes is None:
        return []
    if spots is None or genes == "all":
        example = arg("genes", "Gad1,Sst") + " " + arg("spots", "spots.h5ad")
        raise SettingError(
            arg("genes", genes),
            expected="names of genes, and an output for the spots",
            got="no " + arg("spots") if spots is None else "all",
            fix="Add " + example + ". To get all genes, run cellweft impute.",
        )
    return read_genes(genes) or []


def _made(placed: AnnData, placement: Placement) -> tuple[str, dict[str, Any]]:
    """Return a summary of the result, as text and as values."""
    from cellweft._text import many

    confidence = float(placed.obs[CONFIDENCE].median())
    spread = float(placed.obs[SPREAD].median())
    n_slices = len(placement.spot_groups)
    said = f"{many(placed.n_obs, 'cell')} on {many(len(placement.spots), 'spot')}"
    said += f" of {many(n_slices, 'slice')}" if n_slices > 1 else ""
    said += f", median confidence {confidence:.2f}, spread {spread:.3g} in the unit of the coordinates"
    return said, {
        "cells": placed.n_obs,
        "n_spots": len(placement.spots),
        "slices": n_slices,
        "model_genes": len(placement.genes),
        "median_confidence": confidence,
        "median_spread": spread,
    }
