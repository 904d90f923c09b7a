"""Change one operator or number of the code at a time, and see whether a test notices it.

The changes are drawn by a seed from all that can be made in the networks, the scores and the uncertainty: the
same command draws the same ones from the same code. The code itself is never touched: a copy of it is.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "cellweft"
PARTS = ("nn", "evaluate/metrics.py", "evaluate/placement_metrics.py", "impute/uncertainty")
_MOST_SECONDS = 900.0

# Tests that look at a file, beside the one of its name.
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
    """One change: the file, the line, what it was and is, and the whole changed text."""

    file: str
    line: int
    change: str
    text: str


def _changed(node: ast.AST) -> ast.AST | None:
    """Return a changed copy of a node, None where nothing of it is changed."""
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


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Yield all changes of a file; annotations, decorators and messages are left alone."""
    tree = ast.parse(path.read_text())
    apart: set[int] = set()
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
                _put(parent, name, place, made)
                yield Mutant(
                    file=str(path.relative_to(PACKAGE)),
                    line=getattr(node, "lineno", 0),
                    change=f"{_said(node)} -> {_said(made)}",
                    text=ast.unparse(tree),
                )
                _put(parent, name, place, node)


def _put(parent: ast.AST, name: str, place: int, node: ast.AST) -> None:
    value = getattr(parent, name)
    if isinstance(value, list):
        value[place] = node
    else:
        setattr(parent, name, node)


def tests_of(file: str) -> list[str]:
    """Return the files of tests that look at a file of the package."""
    path = Path(file)
    own = ROOT / "tests" / path.with_name(f"test_{path.name.removeprefix('_')}")
    named = [str(own.relative_to(ROOT))] if own.is_file() else []
    found = [*named, *ALSO.get(file, [])]
    return found or [str(Path("tests") / path.parent)]


def is_killed(mutant: Mutant, copy_of_source: Path, markers: str) -> bool:
    """Run the tests of a file with its changed text in a copy of the package; say whether one failed."""
    target = copy_of_source / "cellweft" / mutant.file
    before = target.read_text()
    target.write_text(mutant.text)
    try:
        words = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", markers, *tests_of(mutant.file)]
        environment = os.environ | {"PYTHONPATH": str(copy_of_source), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            timeout=_MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        target.write_text(before)
    return done.returncode not in (0, 5)


def main() -> int:
    """Draw changes, try each, and print the survivors and how many were killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--mutants", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="of those drawn, the first to try")
    parser.add_argument("--last", type=int, default=None, help="and the one to stop before")
    parser.add_argument("--markers", default="not gpu and not robust", help="of pytest: which tests are run")
    parser.add_argument("--list", action="store_true", help="print them, and try none")
    options = parser.parse_args()
    files = sorted(
        one
        for part in PARTS
        for one in ([PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).glob("*.py"))
    )
    every = [mutant for path in files for mutant in mutants_of(path)]
    drawn = random.Random(options.seed).sample(every, min(options.mutants, len(every)))
    chosen = drawn[options.first : options.last]
    print(
        f"{len(every):,} possible changes in {len(files)} files; {len(drawn)} drawn with seed {options.seed}"
    )
    killed = 0
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "src")
        shutil.copytree(PACKAGE, source / "cellweft", ignore=shutil.ignore_patterns("__pycache__"))
        for number, one in enumerate(chosen, options.first):
            said = f"{number} {one.file}:{one.line}: {one.change}"
            if options.list:
                print(said)
                continue
            is_dead = is_killed(one, source, options.markers)
            killed += is_dead
            print(f"{'killed  ' if is_dead else 'SURVIVES'} {said}", flush=True)
    if not options.list:
        print(f"{killed} of {len(chosen)} killed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
