"""The house rules that a machine can hold: layers, public names, docstrings, sizes, import cost."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import weft

PACKAGE = Path(weft.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
each_file = pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])

LAYERS = {
    "_typing": 0,
    "_errors": 0,
    "_compute": 0,
    "devices": 0,
    "core": 1,
    "data": 2,
    "fasta": 3,
    "web": 3,
    "lookup": 3,
    "organisms": 3,
    "proteome": 3,
    "wanted": 3,
    "uniprot": 3,
    "proteins": 3,
    "esm": 3,
    "esm_batches": 3,
    "esm_input": 3,
    "esm_model": 3,
    "esm_parts": 3,
    "esm_source": 3,
    "plan": 3,
    "effort": 3,
    "record": 3,
    "streaming": 3,
    "imputing": 3,
    "imputation": 3,
    "marks": 3,
    "resuming": 3,
    "multiple": 3,
    "differential": 3,
    "stimpute_method": 3,
    "attention_method": 3,
    "attending": 3,
    "trust": 3,
    "intervals": 3,
    "gene_effects": 3,
    "predictability": 3,
    "saved_attention": 3,
    "imputer": 3,
    "reliability": 3,
    "placer": 3,
    "placement": 3,
    "location": 3,
    "attribution": 3,
    "dominance": 3,
    "axis": 3,
    "trends": 3,
    "niches": 3,
    "batches": 3,
    "nearest": 3,
    "assignment": 3,
    "folder": 3,
    "save": 3,
    "saved_placer": 3,
    "loading": 3,
    "distributed": 3,
    "tilemaker": 3,
    "metrics": 4,
    "placement_metrics": 4,
    "clusters": 4,
    "scores": 4,
    "evaluation": 4,
    "evaluation_place": 4,
    "peers": 4,
    "pl": 5,
    "reporting": 5,
    "viewer": 5,
    "demo": 5,
    "cli": 6,
    "__init__": 7,
    "__main__": 7,
}
"""Layer of each room; a room may import from its own layer and from those below."""

FORBIDDEN = {
    "core": {"anndata", "pandas", "scanpy", "h5py", "zarr", "weft.data"},
    "data": {"torch", "weft.core"},
    "metrics": {"torch", "anndata", "weft.data", "weft.core", "weft.imputer"},
    "placement_metrics": {"torch", "anndata", "weft.data", "weft.core", "weft.placer", "weft.placement"},
    "clusters": {"torch", "weft.data", "weft.core", "weft.imputer"},
}
"""What a room may not import, not even inside a function."""

HEAVY = ("torch", "matplotlib", "dask", "scanpy", "transformers", "zarr")
"""What plain ``import weft`` does not load."""

MOST_FILE_LINES = 600
MOST_FUNCTION_LINES = 60
MOST_FUNCTION_LINES_90 = 35  # the 90th percentile
MOST_POSITIONAL = 3
MOST_PUBLIC_METHODS = 10

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', '?')}"


def imports(path: Path) -> Iterator[tuple[ast.AST, str]]:
    """Yield every import of a file, those inside functions too, with its full name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names)


def functions(path: Path) -> Iterator[tuple[Function, bool]]:
    """Yield the functions and methods of a file, none from inside others, and whether they are public."""

    def visit(node: ast.AST, *, public: bool) -> Iterator[tuple[Function, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield child, public and not child.name.startswith("_")
            elif isinstance(child, ast.ClassDef):
                yield from visit(child, public=public and not child.name.startswith("_"))
            elif isinstance(child, ast.If | ast.Try | ast.With):
                yield from visit(child, public=public)

    return visit(tree(path), public=True)


def code_lines(function: Function) -> int:
    """Return the lines of a function without its docstring, which may be as long as it has to say."""
    first = function.body[0]
    told = ast.get_docstring(function) is not None
    return function.end_lineno - function.lineno + 1 - (first.end_lineno - first.lineno + 1 if told else 0)


def asked_names(function: Function) -> list[str]:
    """Return the parameters that a caller fills in."""
    told = function.args
    names = [one.arg for one in (*told.posonlyargs, *told.args, *told.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def decorators(function: Function) -> set[str]:
    return {ast.unparse(one).partition("(")[0] for one in function.decorator_list}


@each_file
def test_imports_go_down_only(path: Path) -> None:
    assert room(path) in LAYERS, f"{room(path)} has no layer: give it one"
    relative = [where(path, node) for node, name in imports(path) if name.startswith(".")]
    assert not relative, "imports are written out, from weft on"
    up = [
        f"{where(path, node)} imports {name}"
        for node, name in imports(path)
        if name.startswith("weft.") and LAYERS.get(name.split(".")[1], 7) > LAYERS[room(path)]
    ]
    assert not up


@each_file
def test_rooms_stay_apart(path: Path) -> None:
    forbidden = FORBIDDEN.get(room(path), set())
    wrong = [
        f"{where(path, node)} imports {name}"
        for node, name in imports(path)
        if any(name == one or name.startswith(f"{one}.") for one in forbidden)
    ]
    assert not wrong


@each_file
def test_a_file_can_be_read_in_one_go(path: Path) -> None:
    """Docstrings are left out of the count: public ones say shapes, units, ranges and errors."""
    told = sum(
        node.body[0].end_lineno - node.body[0].lineno + 1
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node) is not None
    )
    assert len(path.read_text(encoding="utf-8").splitlines()) - told <= MOST_FILE_LINES


@each_file
def test_functions_and_classes_are_small(path: Path) -> None:
    long = [
        f"{where(path, one)} {one.name}: {code_lines(one)} lines"
        for one, _ in functions(path)
        if code_lines(one) > MOST_FUNCTION_LINES
    ]
    wide = [
        f"{where(path, node)} {node.name}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
        and sum(
            isinstance(one, Function) and not one.name.startswith("_") and "overload" not in decorators(one)
            for one in node.body
        )
        > MOST_PUBLIC_METHODS
        and not node.name.startswith("_")
    ]
    assert not long
    assert not wide


def test_most_functions_are_short() -> None:
    lengths = [code_lines(one) for path in FILES for one, _ in functions(path)]
    assert np.quantile(lengths, 0.9) <= MOST_FUNCTION_LINES_90


@each_file
def test_signatures_are_plain(path: Path) -> None:
    wrong = []
    for one, public in functions(path):
        told = one.args
        positional = [arg for arg in (*told.posonlyargs, *told.args) if arg.arg not in ("self", "cls")]
        if public and len(positional) > MOST_POSITIONAL:
            wrong.append(f"{where(path, one)} {one.name}: {len(positional)} positional parameters")
        if public and told.kwarg is not None:
            wrong.append(f"{where(path, one)} {one.name}: **{told.kwarg.arg} says nothing")
        wrong += [
            f"{where(path, one)} {one.name}: {arg.arg} is not keyword-only"
            for arg in positional
            if public and arg.annotation is not None and ast.unparse(arg.annotation) == "bool"
        ]
    assert not wrong


@each_file
def test_everything_public_is_documented(path: Path) -> None:
    wrong = [] if ast.get_docstring(tree(path)) else [f"{where(path, tree(path))} has no docstring"]
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
            wrong.append(f"{where(path, node)} {node.name} has no docstring")
    for one, public in functions(path):
        if public and "overload" not in decorators(one):
            wrong += [f"{where(path, one)} {one.name} {lack}" for lack in lacking(one)]
    assert not wrong


def lacking(function: Function) -> list[str]:
    """Return what the docstring of a public function lacks.

    A docstring of one paragraph may name its parameters in the text.
    """
    text = ast.get_docstring(function) or ""
    if not text:
        return ["has no docstring"]
    names = asked_names(function)
    if "Parameters\n-" in text:
        section = text.partition("Parameters\n-")[2].partition("\n\nReturns\n-")[0]
        heads = " ".join(line for line in section.splitlines() if not line.startswith(" "))
        return [f"does not document {name}" for name in names if name not in re.findall(r"\w+", heads)]
    if len(names) > 2 and len(text.split("\n\n")) > 1:
        return ["has no Parameters"]
    return []


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


@each_file
def test_nothing_prints_but_the_command_line(path: Path) -> None:
    if room(path) in ("cli", "__main__"):
        return
    calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    assert not [where(path, node) for node in calls if called(node) == "print"]


@each_file
def test_nothing_is_unpickled(path: Path) -> None:
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    wrong = [where(path, node) for node, name in imports(path) if name.split(".")[0] in modules]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            loads = called(node) in ("torch.load", "torch.save", "pd.read_pickle", "pandas.read_pickle")
            allows = any(
                one.arg == "allow_pickle"
                and not (isinstance(one.value, ast.Constant) and one.value.value is False)
                for one in node.keywords
            )
            wrong += [where(path, node)] if loads or allows else []
    assert not wrong


GLOBAL_RANDOMNESS = (
    {f"{module}.seed" for module in ("np.random", "numpy.random", "random")}
    | {"torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all"}
    | {"torch.random.manual_seed", "np.random.set_state", "torch.set_rng_state", "random.setstate"}
)
DRAWS = {
    "rand",
    "randn",
    "random",
    "normal",
    "uniform",
    "choice",
    "permutation",
    "shuffle",
    "randint",
    "poisson",
}


@each_file
def test_the_global_random_state_is_left_alone(path: Path) -> None:
    wrong = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            owner, _, name = called(node).rpartition(".")
            if called(node) in GLOBAL_RANDOMNESS or (
                owner in ("np.random", "numpy.random") and name in DRAWS
            ):
                wrong.append(f"{where(path, node)} {called(node)}")
    assert not wrong


@each_file
def test_what_a_user_can_cause_is_raised_not_asserted(path: Path) -> None:
    assert not [where(path, node) for node in ast.walk(tree(path)) if isinstance(node, ast.Assert)]


@each_file
def test_no_trace_of_the_place_it_was_written_in(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not [
        word for word in ("/work/", "/tmp/", "/home/", "/root/", "TODO", "FIXME", "XXX") if word in text
    ]


def test_no_cycle_between_rooms() -> None:
    """Rooms of one layer may use each other, but not in a circle."""
    uses: dict[str, set[str]] = {}
    for path in FILES:
        names = {
            name.split(".")[1] for _, name in imports(path) if name.startswith("weft.") and name.count(".")
        }
        uses.setdefault(room(path), set()).update(names - {room(path)})
    open_rooms = {one: targets & uses.keys() for one, targets in uses.items()}
    while free := [one for one, targets in open_rooms.items() if not targets]:
        for one in free:
            del open_rooms[one]
        for targets in open_rooms.values():
            targets.difference_update(free)
    assert not open_rooms, f"these rooms import each other in a circle: {sorted(open_rooms)}"


def test_public_names_are_there_and_documented() -> None:
    names = list(getattr(weft, "__all__", []))
    assert names == sorted(set(names), key=names.index), "a name stands twice in weft.__all__"
    for name in names:
        thing = getattr(weft, name)
        if callable(thing) or inspect.ismodule(thing):
            assert inspect.getdoc(thing), f"weft.{name} has no docstring"


def test_no_public_name_is_lost_to_a_module() -> None:
    # Importing the module weft.x would overwrite the function weft.x.
    modules = {room(path) for path in FILES} - {"__init__"}
    clash = [name for name in getattr(weft, "__all__", []) if name in modules]
    assert all(inspect.ismodule(getattr(weft, name)) for name in clash), clash


def test_the_directory_lists_the_public_names() -> None:
    assert set(getattr(weft, "__all__", [])) <= set(dir(weft))


def loaded_after(code: str) -> set[str]:
    script = f"import sys; {code}; sys.stdout.write(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_weft_is_cheap() -> None:
    assert not loaded_after("import weft") & set(HEAVY)


def test_the_data_room_is_light() -> None:
    rooms = ("pair", "write", "embeddings", "simulate", "pseudospots", "truth", "stream", "results")
    # anndata itself loads zarr and dask, where they are installed.
    loaded = loaded_after("; ".join(f"import weft.data.{one}" for one in rooms))
    assert not loaded & (set(HEAVY) - {"zarr", "dask"})


@each_file
def test_every_module_can_be_imported(path: Path) -> None:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    importlib.import_module(".".join(part for part in parts if part != "__init__"))


WRONG = """
import pickle

def f(a: int, b, c, d, *, e=1):
    '''Do.

    More.

    Parameters
    ----------
    a
        This.
    '''
    from weft.core import stem
    return a

class _C:
    def g(self): ...
"""


def test_the_readers_of_this_file_see_what_they_are_for(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(WRONG)
    (outer, outer_is_public), (inner, inner_is_public) = functions(path)
    assert (outer.name, outer_is_public, inner.name, inner_is_public) == ("f", True, "g", False)
    assert code_lines(outer) == 3
    assert asked_names(outer) == ["a", "b", "c", "d", "e"]
    assert lacking(outer) == [f"does not document {name}" for name in "bcde"]
    assert lacking(inner) == ["has no docstring"]
    assert [name for _, name in imports(path)] == ["pickle", "weft.core.stem"]
