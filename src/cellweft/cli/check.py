"""``cellweft check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellweft._errors import FormatError, SettingError, arg
from cellweft._text import many
from cellweft.cli.console import Screen, cautions_of, counted, running
from cellweft.cli.options import PairOptions, Reference, RunOptions
from cellweft.cli.parsing import check_device


def check(
    sc: Reference,
    st: Annotated[Path | None, typer.Argument(metavar="ST")] = None,
    *,
    deep: bool = False,
    data: PairOptions,
    run: RunOptions,
) -> None:
    """Check two inputs: what they contain, whether they match, and what you should know before you impute.

    Parameters
    ----------
    st
        Spatial data, in any of these formats. Omit it to check a single result with --deep.
    deep
        Read every chunk of zarr stores that cellweft wrote, and compare it with its recorded checksum.
    sc, data, run
        Options that are shared by several commands.
    """
    with running(run) as screen:
        check_device(run.device)
        from cellweft.data.io.results import open_result
        from cellweft.data.summary import summary_text

        chunks = _compared(screen, [sc, st]) if deep else {}
        if st is None:
            if not deep:
                fix = "Pass the spatial data too, or check a single store: " + arg("deep", True) + "."
                raise SettingError("st", expected="spatial data", got="none", fix=fix)
            open_result(sc, argument="sc")
            if not chunks:
                raise FormatError(
                    str(sc),
                    expected="a zarr store that cellweft wrote",
                    got="no checksums",
                    fix="Compare it with the original instead.",
                )
            screen.finish(f"{sc} is intact", {"command": "check", "chunks": chunks})
            return
        pair = data.pair(sc, st)
        screen.say(summary_text(pair.findings, tuple(cautions_of(pair))))
        screen.finish(
            f"The inputs can be used: {counted(pair)}",
            {"command": "check", "findings": pair.findings, "cautions": cautions_of(pair), "chunks": chunks},
        )


def _compared(screen: Screen, paths: list[Path | None]) -> dict[str, int]:
    """Compare the checksums of stores, and return the number of chunks of each store that has checksums."""
    from cellweft.data.io.zarr_store import check_manifest, is_store

    compared = {}
    for path in (candidate for candidate in paths if candidate is not None and candidate.exists()):
        n_chunks = check_manifest(path, deep=True) if is_store(path) else 0
        if not n_chunks:
            screen.say(f"{path}: no checksums; only zarr stores that cellweft wrote have them.")
        else:
            compared[str(path)] = n_chunks
            screen.say(f"{path}: {many(n_chunks, 'chunk')}, all identical to what was written.")
    return compared
