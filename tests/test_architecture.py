"""Rules of the code that are checked: layers, public names, docstrings, sizes and import cost."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import cellweft

PACKAGE = Path(cellweft.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def for_every(paths: Sequence[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """Make a single test of a rule for many files or folders, which lists all that break it."""

    def decorate(rule: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            broken = []
            for path in paths:
                try:
                    rule(path)
                except AssertionError as error:
                    broken.append(f"{path.relative_to(PACKAGE.parent)}: {error}")
            assert not broken, "\n".join(broken)

        test.__name__, test.__doc__ = rule.__name__, rule.__doc__
        return test

    return decorate


each_file = for_every(FILES)

LAYERS = (
    ("_text", "_typing"),
    ("_errors",),
    ("errors", "_compute", "_statistics"),
    ("_provenance",),
    ("nn",),
    ("data",),
    ("genes",),
    ("_model_folder",),
    ("impute", "place"),
    ("tl", "_load"),
    ("evaluate",),
    ("io", "metrics", "datasets"),
    ("pl",),
    ("reports", "viewer"),
    ("cli",),
    ("__init__", "__main__"),
)
"""Files and packages at the top level, from the lowest layer up; each imports only from lower layers."""

INSIDE = {
    "data": (("io", "instruments"), ("*",), ("synthetic", "export")),
    "genes": (("*",), ("proteins",), ("esm",)),
}
"""The order within packages that contain packages; `*` stands for all other files."""

FORBIDDEN = {
    "nn": {"anndata", "pandas", "scanpy", "h5py", "zarr"},
    "data": {"torch"},
    "evaluate/metrics.py": {"torch", "anndata", "cellweft.data", "cellweft.nn", "cellweft.impute"},
    "evaluate/placement_metrics.py": {"torch", "anndata", "cellweft.data", "cellweft.nn", "cellweft.place"},
    "tl/_clustering.py": {"torch", "cellweft.data", "cellweft.nn", "cellweft.impute"},
}
"""Imports that a package or file may not have, not even inside a function."""

HEAVY = ("torch", "matplotlib", "dask", "scanpy", "transformers", "zarr")
"""Packages that plain `import cellweft` does not load."""

MOST_FILE_LINES = 600
MOST_FILES_AT_THE_TOP = 14
MOST_PACKAGES = 13
MOST_FUNCTION_LINES = 60
MOST_FUNCTION_LINES_90 = 24  # the 90th percentile
MOST_POSITIONAL = 3
MOST_PUBLIC_METHODS = 10

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree(path)))


def top_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', '?')}"


def imports(path: Path) -> Iterator[tuple[ast.AST, str]]:
    """Yield every import of a file with its full name, including those inside functions."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names)


def functions(path: Path) -> Iterator[tuple[Function, bool]]:
    """Yield the functions and methods of a file, except nested ones, and whether they are public."""

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
    """Return the number of lines of a function without its docstring."""
    first = function.body[0]
    told = ast.get_docstring(function) is not None
    return function.end_lineno - function.lineno + 1 - (first.end_lineno - first.lineno + 1 if told else 0)


def asked_names(function: Function) -> list[str]:
    """Return the names of the parameters of a function, without self and cls."""
    told = function.args
    names = [one.arg for one in (*told.posonlyargs, *told.args, *told.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def decorators(function: Function) -> set[str]:
    return {ast.unparse(one).partition("(")[0] for one in function.decorator_list}


def layer(name: str) -> int:
    """Return the layer of a file or package at the top level."""
    return next((number for number, names in enumerate(LAYERS) if name in names), -1)


def floor(package: str, name: str) -> int:
    """Return the layer of a file or package inside a package with an order."""
    order = INSIDE[package]
    named = [number for number, names in enumerate(order) if name in names]
    return named[0] if named else order.index(("*",))


def modules_of(path: Path) -> Iterator[tuple[ast.AST, str]]:
    """Yield the modules of cellweft that a file imports, without the name of the package."""
    for node, name in imports(path):
        parts = name.split(".")
        if parts[0] != "cellweft":
            continue
        while len(parts) > 1 and not PACKAGE.joinpath(*parts[1:]).with_suffix(".py").is_file():
            if PACKAGE.joinpath(*parts[1:]).is_dir():
                break
            parts.pop()
        yield node, ".".join(parts[1:]) or "__init__"


@each_file
def test_imports_only_go_to_lower_layers(path: Path) -> None:
    assert layer(top_of(path)) >= 0, f"{top_of(path)} has no layer: add it to LAYERS"
    relative = [where(path, node) for node, name in imports(path) if name.startswith(".")]
    assert not relative, "use absolute imports, starting with cellweft"
    if path.name == "__init__.py":
        return  # re-exports the names of lower layers and of its own files, each loaded on first use
    up = []
    for node, name in modules_of(path):
        top, _, below = name.partition(".")
        if top != top_of(path):
            up += [] if layer(top) < layer(top_of(path)) else [f"{where(path, node)} imports {name}"]
        elif top in INSIDE:
            mine = path.relative_to(PACKAGE / top).parts[0].removesuffix(".py")
            if floor(top, below.partition(".")[0]) > floor(top, mine):
                up.append(f"{where(path, node)} imports {name}")
    assert not up


@each_file
def test_packages_have_no_forbidden_imports(path: Path) -> None:
    relative = path.relative_to(PACKAGE).as_posix()
    forbidden = FORBIDDEN.get(top_of(path), set()) | FORBIDDEN.get(relative, set())
    wrong = [
        f"{where(path, node)} imports {name}"
        for node, name in imports(path)
        if any(name == one or name.startswith(f"{one}.") for one in forbidden)
    ]
    assert not wrong


def test_the_top_level_is_small() -> None:
    files = [path.name for path in PACKAGE.iterdir() if path.suffix in (".py", ".pyi")]
    packages = [path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()]
    assert len(files) <= MOST_FILES_AT_THE_TOP, sorted(files)
    assert len(packages) <= MOST_PACKAGES, sorted(packages)


@each_file
def test_files_are_not_too_long(path: Path) -> None:
    """Docstrings are not counted, because public ones describe shapes, units, ranges and errors."""
    told = sum(
        node.body[0].end_lineno - node.body[0].lineno + 1
        for node in nodes(path)
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
        for node in nodes(path)
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
    """Return what is missing in the docstring of a public function.

    A docstring with one paragraph may name its parameters in the text.
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
def test_only_the_command_line_prints(path: Path) -> None:
    if top_of(path) in ("cli", "__main__"):
        return
    calls = [node for node in nodes(path) if isinstance(node, ast.Call)]
    assert not [where(path, node) for node in calls if called(node) == "print"]


@each_file
def test_nothing_is_unpickled(path: Path) -> None:
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    wrong = [where(path, node) for node, name in imports(path) if name.split(".")[0] in modules]
    for node in nodes(path):
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
    for node in nodes(path):
        if isinstance(node, ast.Call):
            owner, _, name = called(node).rpartition(".")
            if called(node) in GLOBAL_RANDOMNESS or (
                owner in ("np.random", "numpy.random") and name in DRAWS
            ):
                wrong.append(f"{where(path, node)} {called(node)}")
    assert not wrong


@each_file
def test_errors_of_users_are_raised_not_asserted(path: Path) -> None:
    assert not [where(path, node) for node in nodes(path) if isinstance(node, ast.Assert)]


@each_file
def test_no_local_paths_and_no_open_tasks(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not [
        word for word in ("/work/", "/tmp/", "/home/", "/root/", "TODO", "FIXME", "XXX") if word in text
    ]


def test_there_are_no_circular_imports() -> None:
    """There is no circle of imports of any length, not even within a package."""
    uses: dict[str, set[str]] = {}
    for path in FILES:
        if path.name != "__init__.py":
            name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            uses[name] = {target for _, target in modules_of(path)} - {name}
    left = {one: targets & uses.keys() for one, targets in uses.items()}
    while free := [one for one, targets in left.items() if not targets]:
        for one in free:
            del left[one]
        for targets in left.values():
            targets.difference_update(free)
    assert not left, f"these files have circular imports: {sorted(left)}"


PACKAGES = sorted({path.parent for path in FILES})
each_package = for_every(PACKAGES)
NAMESPACES = ("datasets", "errors", "genes", "io", "metrics", "pl", "tl")


def module_of(folder: Path) -> ModuleType:
    return importlib.import_module(".".join(("cellweft", *folder.relative_to(PACKAGE).parts)))


@each_package
def test_public_names_exist_and_are_documented(folder: Path) -> None:
    package = module_of(folder)
    names = list(getattr(package, "__all__", []))
    assert len(names) == len(set(names)), "__all__ has a duplicate name"
    for name in names:
        thing = getattr(package, name)
        if callable(thing) or inspect.ismodule(thing):
            assert inspect.getdoc(thing), f"{package.__name__}.{name} has no docstring"


@each_package
def test_no_public_name_is_overwritten_by_a_module(folder: Path) -> None:
    # Importing the module cellweft.x would overwrite the function cellweft.x.
    modules = {one.stem for one in folder.iterdir() if one.suffix == ".py" or (one / "__init__.py").is_file()}
    package = module_of(folder)
    clash = [name for name in getattr(package, "__all__", []) if name in modules]
    assert all(inspect.ismodule(getattr(package, name)) for name in clash), clash


@each_package
def test_dir_lists_only_the_public_names(folder: Path) -> None:
    package = module_of(folder)
    names = getattr(package, "__all__", None)
    if names is not None:
        assert sorted(names) == dir(package)


@pytest.mark.parametrize("name", NAMESPACES)
def test_dir_of_a_namespace_lists_its_public_names(name: str) -> None:
    namespace = getattr(cellweft, name)
    assert sorted(namespace.__all__) == sorted(one for one in dir(namespace) if not one.startswith("_"))


@each_package
def test_names_that_are_loaded_on_first_use_are_typed(folder: Path) -> None:
    """The stub of a package that loads its names on first use lists the same names as the package."""
    stub = folder / "__init__.pyi"
    names = getattr(module_of(folder), "__all__", [])
    if folder == PACKAGE or "lazy_loader" not in (folder / "__init__.py").read_text(encoding="utf-8"):
        return
    imported = [
        alias for node in ast.walk(tree(stub)) if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    assert sorted(alias.asname or "" for alias in imported) == sorted(names)


def loaded_after(code: str) -> set[str]:
    script = f"import sys; {code}; sys.stdout.write(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_cellweft_is_cheap() -> None:
    assert not loaded_after("import cellweft") & set(HEAVY)


def test_data_and_gene_relations_load_nothing_heavy() -> None:
    files = [
        *("data._pair", "data.io.backed_matrix", "data.io.results", "data.io.write"),
        *("data.synthetic.pseudospots", "data.synthetic.tissue", "evaluate.ground_truth", "genes.embeddings"),
    ]
    # anndata itself loads zarr and dask if they are installed.
    loaded = loaded_after("; ".join(f"import cellweft.{one}" for one in files))
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
    from cellweft.nn import stem
    return a

class _C:
    def g(self): ...
"""


def test_the_helpers_of_this_file_detect_violations(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(WRONG)
    (outer, outer_is_public), (inner, inner_is_public) = functions(path)
    assert (outer.name, outer_is_public, inner.name, inner_is_public) == ("f", True, "g", False)
    assert code_lines(outer) == 3
    assert asked_names(outer) == ["a", "b", "c", "d", "e"]
    assert lacking(outer) == [f"does not document {name}" for name in "bcde"]
    assert lacking(inner) == ["has no docstring"]
    assert [name for _, name in imports(path)] == ["pickle", "cellweft.nn.stem"]
