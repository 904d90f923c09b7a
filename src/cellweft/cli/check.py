"""``cellweft check``."""

from __future__ import annotations

from cellweft.cli.console import cautions_of, counted, running
from cellweft.cli.options import PairOptions, Reference, RunOptions, Spatial
from cellweft.cli.parsing import check_device


def check(sc: Reference, st: Spatial, *, data: PairOptions, run: RunOptions) -> None:
    """Say what two inputs hold, whether they fit together, and what to know before you impute."""
    with running(run) as screen:
        check_device(run.device)
        from cellweft.data.summary import summary_text

        pair = data.pair(sc, st)
        screen.say(summary_text(pair.findings, tuple(cautions_of(pair))))
        screen.finish(
            f"The inputs can be used: {counted(pair)}",
            {"command": "check", "findings": pair.findings, "cautions": cautions_of(pair)},
        )
