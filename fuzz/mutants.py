"""Change one operator or number of the code at a time, and see whether a test detects it.

The changes are drawn with a seed from all possible ones in the networks, the scores and the uncertainty: the
same command draws the same ones from the same code, and after a change of the code, the same ones from its
unchanged parts. Only a copy of the code is changed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "cellweft"
PARTS = ("nn", "evaluate/metrics.py", "evaluate/placement_metrics.py", "impute/uncertainty")
_MOST_SECONDS = 600.0

# Tests of a file, besides the one named after it.
ALSO = {
    "nn/attention.py": ["tests/impute/test_attention.py", "tests/impute/test_attention_training.py"],
    "nn/stimpute.py": ["tests/impute/test_stimpute.py", "tests/impute/test_stimpute_networks.py"],
    "nn/gene_graph.py": ["tests/nn/test_gene_relations.py", "tests/impute/test_stimpute_networks.py"],
    "nn/stem.py": ["tests/place/test_placer.py"],
    "nn/config.py": ["tests/impute/test_imputer.py"],
    "nn/device.py": ["tests/nn/test_parallel.py"],
    "nn/operator.py": ["tests/nn/test_mapping.py"],
}
_OTHER = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Pow: ast.Mult, ast.Mod: ast.Mult, ast.MatMult: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
_NAMES = {
    "min": "max",
    "max": "min",
    "mean": "sum",
    "sum": "mean",
    "minimum": "maximum",
    "maximum": "minimum",
}
_NAMES |= {"argmax": "argmin", "argmin": "argmax", "any": "all", "all": "any", "log": "log1p", "exp": "expm1"}


@dataclass(frozen=True)
class Mutant:
    """One change: the file, the line, and the text before and after.

    `same` counts the changes with the same text in the file, so that both together identify this change,
    whatever is changed elsewhere.
    """

    file: str
    line: int
    change: str
    same: int

    def rank(self, seed: int) -> str:
        """Return the key that orders all changes at random; the first are drawn."""
        return hashlib.sha256(f"{seed} {self.file} {self.change} {self.same}".encode()).hexdigest()

    def said(self) -> str:
        """Return the change as printed."""
        return f"{self.file}:{self.line}: {self.change}"


def _changed(node: ast.AST) -> ast.AST | None:
    """Return a changed copy of a node, or None if nothing in it can be changed."""
    made = copy.copy(node)
    if isinstance(made, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(made.op) in _OTHER:
        made.op = _OTHER[type(made.op)]()
    elif isinstance(made, ast.Compare) and len(made.ops) == 1 and type(made.ops[0]) in _OTHER:
        made.ops = [_OTHER[type(made.ops[0])]()]
    elif isinstance(made, ast.UnaryOp) and isinstance(made.op, ast.USub | ast.Not):
        return made.operand
    elif isinstance(made, ast.Constant) and type(made.value) in (int, float):
        made.value = made.value + 1 if isinstance(made.value, int) else made.value * 2 + 0.1
    elif isinstance(made, ast.Constant) and isinstance(made.value, bool):
        made.value = not made.value
    elif isinstance(made, ast.Attribute) and made.attr in _NAMES:
        made.attr = _NAMES[made.attr]
    elif isinstance(made, ast.Name) and made.id in _NAMES and isinstance(made.ctx, ast.Load):
        made.id = _NAMES[made.id]
    else:
        return None
    return made


def _said(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())[:70]


def _changes(path: Path) -> Iterator[tuple[Mutant, ast.Module]]:
    """Yield all changes of a file, each with the changed tree, which the next iteration restores.

    Annotations, decorators and messages are not changed.
    """
    tree = ast.parse(path.read_text())
    apart: set[int] = set()
    counted: Counter[str] = Counter()
    for node in ast.walk(tree):
        left = [getattr(node, name, None) for name in ("annotation", "returns")]
        left += list(getattr(node, "decorator_list", ()))
        left += [node] if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom) else []
        apart |= {id(one) for top in left if isinstance(top, ast.AST) for one in ast.walk(top)}
    for parent in list(ast.walk(tree)):
        for name, value in ast.iter_fields(parent):
            for place, node in enumerate(value if isinstance(value, list) else [value]):
                made = _changed(node) if isinstance(node, ast.AST) and id(node) not in apart else None
                if made is None:
                    continue
                change = f"{_said(node)} -> {_said(made)}"
                counted[change] += 1
                file, line = str(path.relative_to(PACKAGE)), getattr(node, "lineno", 0)
                _put(parent, name, place, made)
                yield Mutant(file=file, line=line, change=change, same=counted[change]), tree
                _put(parent, name, place, node)


def changed_text(mutant: Mutant) -> str:
    """Return the text of the changed file."""
    return next(ast.unparse(tree) for one, tree in _changes(PACKAGE / mutant.file) if one == mutant)


def _put(parent: ast.AST, name: str, place: int, node: ast.AST) -> None:
    value = getattr(parent, name)
    if isinstance(value, list):
        value[place] = node
    else:
        setattr(parent, name, node)


def tests_of(file: str) -> list[str]:
    """Return the test files of a file of the package."""
    path = Path(file)
    own = ROOT / "tests" / path.with_name(f"test_{path.name.removeprefix('_')}")
    named = [str(own.relative_to(ROOT))] if own.is_file() else []
    found = [*named, *ALSO.get(file, [])]
    return found or [str(Path("tests") / path.parent)]


def _preload() -> None:
    """Load the libraries that all tests need once; each mutant is tested in a fork with them loaded."""
    for name in ("anndata", "scanpy", "sklearn.neighbors", "torch", "scipy.stats"):
        importlib.import_module(name)


class _Noted:
    """Pytest plug-in that writes the name of the first failing test, or of a file that cannot be imported."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.path.exists():
            self.path.write_text(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.path.exists():
            self.path.write_text(report.nodeid)


def _first_failure(source: Path, tests: list[str], markers: str) -> str | None:
    """Run tests with a copy of the package in a fork of this process.

    Returns
    -------
    str or None
        The first failing test; empty if all hang or exit at once; None if none fails.
    """
    note = source.with_name("failed")
    note.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os.setsid()
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        sys.path.insert(0, str(source))
        os.environ["PYTHONPATH"] = str(source)
        sys.dont_write_bytecode = True
        status = 1
        try:
            words = ["-x", "-q", "-p", "no:cacheprovider", "-m", markers, *tests]
            preloaded = "ignore::pytest.PytestAssertRewriteWarning"  # zarr is also a pytest plug-in
            status = int(pytest.main(["-W", preloaded, *words], plugins=[_Noted(note)]))
        finally:
            os._exit(status)
    ends = time.monotonic() + _MOST_SECONDS
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            passed = os.waitstatus_to_exitcode(status) in (0, pytest.ExitCode.NO_TESTS_COLLECTED)
            return None if passed else note.read_text() if note.exists() else ""
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return ""


def killer_of(mutant: Mutant, source: Path, markers: str) -> str | None:
    """Run the tests of a file with its changed text, the quick ones first; return the first that fails.

    Parameters
    ----------
    mutant
        The change.
    source
        Folder with a copy of the package.
    markers
        Pytest's marker expression, which selects the tests.
    """
    target = source / "cellweft" / mutant.file
    before = target.read_text()
    target.write_text(changed_text(mutant))
    try:
        for part in ("not slow", "slow"):
            failed = _first_failure(source, tests_of(mutant.file), f"{part} and ({markers})")
            if failed is not None:
                return failed
        return None
    finally:
        target.write_text(before)


def main() -> int:
    """Draw changes, try each, and print the survivors and how many were killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--mutants", type=int, default=100)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of those drawn; all by default")
    parser.add_argument("--markers", default="not gpu and not robust", help="of pytest: which tests are run")
    parser.add_argument("--list", action="store_true", help="print them, and try none")
    options = parser.parse_args()
    files = sorted(
        one
        for part in PARTS
        for one in ([PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).glob("*.py"))
    )
    every = [mutant for path in files for mutant, _ in _changes(path)]
    drawn = sorted(every, key=lambda one: one.rank(options.seed))[: options.mutants]
    chosen = range(len(drawn)) if options.only is None else options.only
    print(
        f"{len(every):,} possible changes in {len(files)} files; {len(drawn)} drawn with seed {options.seed}"
    )
    if options.list:
        print("\n".join(f"{number} {drawn[number].said()}" for number in chosen))
        return 0
    return _try_all({number: drawn[number] for number in chosen}, options.markers)


def _try_all(chosen: dict[int, Mutant], markers: str) -> int:
    """Try changes, those of a file one after another; print each result and the test that detected it."""
    _preload()
    killed, sound = 0, {""}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "src")
        shutil.copytree(PACKAGE, source / "cellweft", ignore=shutil.ignore_patterns("__pycache__"))
        for number, one in sorted(chosen.items(), key=lambda item: (item[1].file, item[0])):
            start = time.monotonic()
            killer = killer_of(one, source, markers)
            if killer and killer not in sound:
                if _first_failure(source, [killer], markers) is not None:
                    print(f"{killer} fails without any change", flush=True)
                    return 1
                sound.add(killer)
            killed += killer is not None
            fate = "SURVIVES" if killer is None else "killed  "
            by = f" by {killer}" if killer else ""
            print(f"{fate} {number} {one.said()} ({time.monotonic() - start:.0f} s){by}", flush=True)
    print(f"{killed} of {len(chosen)} killed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
