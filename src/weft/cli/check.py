"""``weft check``."""

from __future__ import annotations

from weft.cli.options import PairOptions, Reference, RunOptions, Spatial
from weft.cli.screen import Screen, told_errors
from weft.cli.words import cautions_of, check_device, counted, in_words_of_the_shell


def check(sc: Reference, st: Spatial, *, data: PairOptions, run: RunOptions) -> None:
    """Say what two inputs hold, whether they fit together, and what to know before you impute."""
    with told_errors(as_json=run.as_json):
        screen = Screen(run)
        check_device(run.device)
        pair = data.pair(sc, st)
        screen.say(in_words_of_the_shell(pair.summary()))
        screen.finish(
            f"The inputs can be used: {counted(pair)}",
            {
                "command": "check",
                "findings": pair.findings,
                "cautions": cautions_of(pair),
            },
        )
