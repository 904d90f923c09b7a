"""What a command prints: text or a JSON object on standard output, progress and errors on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console, RenderableType

from cellweft._compute import is_out_of_memory, progress_callback
from cellweft._errors import CellweftError, MemoryBudgetError, arg
from cellweft._text import human_bytes
from cellweft._typing import PathLike, Progress
from cellweft.cli.options import ShownOptions, as_option, in_options

if TYPE_CHECKING:
    from cellweft.data._pair import Pair

_WIDTH = 120  # width of tables in a file or pipe
_LINE_EVERY = 10.0  # seconds between progress lines in a file


class Screen:
    """Where one run of a command prints.

    Parameters
    ----------
    options
        Whether to print JSON, and whether to be quiet.
    stack
        Closed when the command ends.
    """

    def __init__(self, options: ShownOptions, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._as_json, self._talks = options.as_json, not (options.as_json or options.quiet)
        self._start = time.monotonic()

    def hold(self, *outputs: PathLike) -> None:
        """Lock these outputs against other runs until the command ends."""
        from cellweft.data.io.atomic_output import output_errors
        from cellweft.data.io.output_lock import exclusive

        for path in outputs:
            with output_errors(path):
                self._stack.enter_context(exclusive(path))

    def say(self, text: str) -> None:
        """Print a line, unless JSON or quiet is requested."""
        if self._talks:
            typer.echo(text)

    def announce(self, pair: Pair, plan: str) -> None:
        """Print the inputs, the cautions and the plan, unless JSON or quiet is requested."""
        self.say(f"Inputs: {counted(pair)}")
        self.say_each(cautions_of(pair))
        self.say(f"Plan: {plan}")

    def say_each(self, lines: Iterable[str]) -> None:
        """Print lines as the items of a list, unless JSON or quiet is requested."""
        for line in lines:
            self.say(f"  - {line}")

    def show(self, table: RenderableType) -> None:
        """Print a table, unless JSON or quiet is requested."""
        if self._talks:
            console = Console(highlight=False)
            console = console if console.is_terminal else Console(highlight=False, width=_WIDTH)
            console.print(table)

    def finish(self, line: str, record: dict[str, Any]) -> None:
        """Print the last line, or the record as JSON, with the time and peak memory of the command."""
        seconds, peak = time.monotonic() - self._start, _peak_memory()
        if self._as_json:
            record = record | {"seconds": round(seconds, 3), "peak_bytes": peak}
            typer.echo(json.dumps(record, indent=2, allow_nan=False, default=str))
        else:
            memory = "" if peak is None else f", peak memory {human_bytes(peak)}"
            typer.echo(f"{line} ({seconds:,.0f} s{memory})")

    def progress(self) -> contextlib.AbstractContextManager[Progress]:
        """Provide a function that draws a bar in a terminal, or otherwise prints a line now and then.

        With JSON or quiet, it does neither.
        """
        if not self._talks or Console(stderr=True).is_terminal:
            return progress_callback(self._talks)
        return progress_callback(_progress_lines())


def _progress_lines() -> Progress:
    """Return a function that prints a line on standard error every ten seconds, for the log of a long run."""
    printed = time.monotonic()

    def report(stage: str, done: int, total: int) -> None:
        nonlocal printed
        if time.monotonic() - printed >= _LINE_EVERY:
            printed = time.monotonic()
            typer.echo(f"{stage}: {done:,} of {total:,}", err=True)

    return report


def counted(pair: Pair) -> str:
    """Return the size of both inputs and the number of cautions."""
    n_cautions = len(pair.cautions)
    return (
        f"{pair.sc.n_cells:,} reference cells x {pair.sc.n_genes:,} genes, "
        f"{pair.st.n_cells:,} spatial cells x {pair.st.n_genes:,} genes, {len(pair.shared_genes):,} shared, "
        f"{n_cautions or 'no'} caution{'' if n_cautions == 1 else 's'}"
    )


def cautions_of(pair: Pair) -> list[str]:
    """Return the cautions, with arguments as options."""
    return [in_options(caution) for caution in pair.cautions]


@contextlib.contextmanager
def running(options: ShownOptions) -> Iterator[Screen]:
    """Create the screen of a command, print cellweft's own errors, and exit with 2 (interrupts: 130)."""
    try:
        with contextlib.ExitStack() as stack:
            yield Screen(options, stack)
    except CellweftError as error:
        _tell(error, as_json=options.as_json)
        raise typer.Exit(2) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        short = MemoryBudgetError(
            "memory",
            expected="as much memory as planned",
            got="less, the system's limit",
            fix="Lower " + arg("memory") + ", or raise the limit (ulimit -v).",
        )
        for note in _notes(error):
            short.add_note(note)
        _tell(short, as_json=options.as_json)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as interrupt:
        left = " ".join(_notes(interrupt)) or "Nothing incomplete was left behind."
        typer.echo(f"Interrupted. {left}", err=True)
        raise typer.Exit(130) from interrupt


def _notes(error: BaseException) -> list[str]:
    """Return the notes that were added to an error, such as which part of the work is kept."""
    return list(getattr(error, "__notes__", []))


def _tell(error: CellweftError, *, as_json: bool) -> None:
    """Print an error with its next step, and also as JSON if requested."""
    fields = error.fields(as_option)
    typer.echo("Error: {where}: expected {expected}, got {got}. {fix}".format_map(fields), err=True)
    for note in _notes(error):
        typer.echo(note, err=True)
    if as_json:
        about = {"kind": type(error).__name__, "argument": error.argument}
        typer.echo(json.dumps({"error": about | fields}, indent=2))


def _peak_memory() -> float | None:
    """Return the peak memory of this process in bytes, or None if the system does not report it."""
    # On Linux, getrusage starts from the peak of the parent process.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit
