"""Damaged files of every kind raise a FormatError with the file, the element and the next step."""

import contextlib
import gzip
import itertools
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from cellweft._errors import FormatError, InputError
from cellweft.data._pair import pair
from cellweft.data.io.damaged import group_in, reading, system_error
from cellweft.data.io.read import open_input

GENES = [f"Gene{number}" for number in range(12)]
ALONE = "The file is damaged"


@pytest.fixture
def sc(make_side: Any) -> anndata.AnnData:
    return make_side(GENES, n_cells=30, seed=1)


@pytest.fixture
def stored(make_side: Any, write_as: Any, tmp_path: Path) -> Callable[[str], Path]:
    """Function that writes a tissue in a given format and returns its path."""

    def write(kind: str) -> Path:
        data = make_side(GENES[:8], n_cells=20, spatial=True, seed=2)
        data.obs["area"] = np.arange(20.0)
        data.var["kind"] = np.arange(8.0)
        return write_as(data, tmp_path, kind)

    return write


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (KeyError("indptr"), "KeyError: 'indptr'"),
        (RuntimeError("error during blosc decompression: -1"), "error during blosc decompression: -1"),
        (EOFError(), "got EOFError. "),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "can't decode byte 0xff"),
        (ValueError("name \udc80 of a column"), r"name \? of a column"),
        (
            MemoryError("std::bad_alloc"),
            "expected an element that fits into memory, got MemoryError: std::bad",
        ),
        (OSError("Can't synchronously read data (inflate() failed)"), "inflate"),
        (OSError(24, "Too many open files"), "expected a readable file, got a system error while reading"),
        (PermissionError(13, "Permission denied"), "no permission to read it. Change its permissions"),
        (FileNotFoundError(2, "No such file"), "expected a file that stays in place while it is"),
    ],
)
def test_errors_of_libraries_become_format_errors(raised: Exception, said: str) -> None:
    with pytest.raises(FormatError, match=said) as caught, reading("st (a.h5ad)", ".obsm['spatial']"):
        raise raised
    assert str(caught.value).startswith("st (a.h5ad).obsm['spatial']: expected ")
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("raised", [InputError("x", expected="a", got="b", fix="C."), ImportError("no")])
def test_errors_with_their_own_message_pass_unchanged(raised: Exception) -> None:
    with pytest.raises(type(raised)) as caught, reading("st (a.h5ad)"):
        raise raised
    assert caught.value is raised


def test_only_errors_with_a_system_number_are_system_errors() -> None:
    assert system_error("a", OSError("inflate() failed")) is None
    told = str(system_error("a", OSError("unable to open (errno = 13, error message = 'x')")))
    assert "no permission" in told


KINDS = ["h5ad", "h5", "mtx", "csv.gz", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_truncated_files(kind: str, share: float, stored: Any, sc: Any) -> None:
    path = stored(kind)
    file = next(path.glob("*matrix.mtx*")) if path.is_dir() else path
    content = gzip.decompress(file.read_bytes()) if kind == "mtx" and file.suffix == ".gz" else None
    if content is not None:
        file.write_bytes(gzip.compress(content)[: int(len(gzip.compress(content)) * share)])
    else:
        file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(FormatError, match="expected") as caught:
        pair(sc, path)
    assert f"({path})" in str(caught.value)


def _without(key: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[key]

    return change


def _put(key: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        attributes = dict(file[key].attrs)
        del file[key]
        file[key] = value
        file[key].attrs.update(attributes)

    return change


def _told(key: str, name: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[key].attrs[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("X/indptr"), r"\.X: expected a sparse matrix"),
        (_without("obs/area"), r"\.obs: expected an element that can be read, got KeyError"),
        (_put("obs/area", np.arange(3.0)), r"\.obs\['area'\]: expected a table .* 3 values for 20 cells"),
        (_put("var", 1), r"\.var: expected an element that can be read, got IORegistryError"),
        (_put("X/indices", np.zeros((2, 2))), r"\.X\.indices: expected a list of values, got shape \(2, 2\)"),
        (_put("X/indptr", np.zeros(21)), r"\.X\.indptr: expected whole numbers, got float64"),
        (_put("X/data", np.array([b"a"] * 160)), r"\.X\.data: expected real numbers, got text"),
        (_put("X/data", np.ones(160) * 1j), r"\.X\.data: expected real numbers, got complex numbers"),
        (_put("X/indptr", h5py.Empty("f")), r"\.X\.indptr: expected a list of values"),
        (_told("X", "shape", "wide"), r"\.X: expected an element that can be read, got ValueError"),
        (_put("obsm", np.zeros(3)), r"\.obsm: expected elements by their names, got a single array"),
        (
            _told("obsm/spatial", "encoding-type", "of another world"),
            r"\.obsm\['spatial'\]: expected an elem",
        ),
    ],
)
def test_elements_of_h5ad(change: Any, said: str, stored: Any, sc: Any, make_side: Any) -> None:
    path = stored("h5ad")
    with h5py.File(path, "r+") as file:
        if isinstance(file["X"], h5py.Dataset):
            pytest.fail("the tissue is sparse")
        change(file)

    def read() -> None:
        pair(sc, path)
        open_input(path, argument="st").obs["area"]

    with pytest.raises(InputError, match=said) as caught:
        read()
    assert f"st ({path})" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [
        ("uns/loop", "uns", r"\.uns\['loop'\]: expected .* a group that links to itself"),
        ("uns/loop", "/", r"\.uns\['loop'\]: expected .* a group that links to itself"),
        ("obs/area", "obs", r"\.obs\['area'\]: expected .* a group that links to itself"),
        ("obsm/spatial", "/", r"\.obsm\['spatial'\]: expected .* a group that links to itself"),
        ("var/of", "var", r"\.var: expected .* a group that links to itself"),
        ("uns/deep/" + "/".join("a" * 300), "", r"\.uns\['deep'\]: expected .* more than 100 deep"),
    ],
)
def test_groups_that_contain_themselves_are_refused(name: str, target: str, said: str, stored: Any) -> None:
    path = stored("h5ad")
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        file[name] = file[target] if target else 1
        if name.startswith("var/"):
            file["var"].attrs["column-order"] = [*file["var"].attrs["column-order"], "of"]

    def read() -> None:
        data = open_input(path, argument="st")
        data.obs["area"]
        for held in (data.obsm, data.uns):
            for key in held:
                held[key]

    with pytest.raises(FormatError, match=said):
        read()


@pytest.mark.parametrize(
    ("kind", "key", "at"), [("h5ad", "obs/_index", r"\.X"), ("h5", "matrix/barcodes", r"\.X")]
)
def test_names_of_more_cells_than_the_matrix_has(kind: str, key: str, at: str, stored: Any, sc: Any) -> None:
    path = stored(kind)
    with h5py.File(path, "r+") as file:
        key = key if key in file else f"obs/{file['obs'].attrs['_index']}"
        key += "/values" if isinstance(file[key], h5py.Group) else ""  # as pandas 3 stores text
        attributes = dict(file[key].attrs)
        n_cells = len(file[key])
        del file[key]
        made = file.create_dataset(key, shape=(2**40,), dtype="S8", chunks=(4096,))
        made.attrs.update(attributes)
    start = time.monotonic()
    said = rf"{at}: expected 1,099,511,627,776 cells x .* as obs and var state, got {n_cells} x "
    if key.endswith("/values"):
        got = rf"names of shape \(1099511627776,\) with a mask of shape \({n_cells},\)"
        said = rf"\.obs: expected a table .*, got {got}"
    with pytest.raises(FormatError, match=said):
        pair(sc, path)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.parametrize(
    ("element", "said"),
    [
        (np.ones((0, 3)), "0 rows"),
        (np.ones((1, 2)), "1 row"),
        (np.arange(38.0).reshape(19, 2), "19 rows"),
        (np.arange(42.0).reshape(21, 2), "21 rows"),
        (sp.csr_matrix(np.arange(24.0).reshape(12, 2)), "12 rows"),
        (pd.DataFrame({"x": [1.0, 2.0], "y": [0.0, 1.0]}, index=["a", "b"]), "2 rows"),
        (np.float64(3), "a single value"),
    ],
)
def test_coordinates_of_another_number_of_cells(
    kind: str, element: Any, said: str, stored: Any, sc: Any
) -> None:
    path = stored(kind)
    is_zarr = kind == "zarr"
    with (
        contextlib.nullcontext(zarr.open_group(path, use_consolidated=False))
        if is_zarr
        else h5py.File(path, "r+")
    ) as store:
        del store["obsm/spatial"]
        anndata.io.write_elem(store["obsm"], "spatial", element)
    if is_zarr:
        zarr.consolidate_metadata(path)
    place = re.escape(f"st ({path}).obsm['spatial']")
    with pytest.raises(
        FormatError, match=f"{place}: expected a row for each of the 20 cells, got {said}\\. T"
    ):
        pair(sc, path)
    assert "spatial" in open_input(path, argument="st").obsm


_TEXT = bytes.fromhex("19010100 10000000")  # the type of text, as HDF5 stores it
_NO_TYPE = bytes.fromhex("190a0100 10000000")  # a type of variable length that is neither text nor a list


@pytest.mark.parametrize("place", ["attribute", "dataset", "compound", "root"])
def test_a_type_that_does_not_exist_in_hdf5_is_refused_before_it_is_read(
    place: str, stored: Any, sc: Any
) -> None:
    path = stored("h5ad")
    before = path.read_bytes().count(_TEXT)
    with h5py.File(path, "r+") as file:
        text, note = h5py.string_dtype(), file.require_group("uns").create_group("note")
        note.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        if place == "attribute":
            note.attrs["more"] = "text"
        elif place == "root":
            file.attrs["more"] = "text"
        else:
            kind = text if place == "dataset" else np.dtype([("number", "f4"), ("name", text)])
            note.create_dataset("table", (3,), dtype=kind)
    content = path.read_bytes()
    assert content.count(_TEXT) > before
    at = content.rindex(_TEXT)
    path.write_bytes(content[:at] + _NO_TYPE + content[at + len(_TEXT) :])
    with pytest.raises(FormatError, match="has values of a type that does not exist"):
        pair(sc, path)  # HDF5 itself would end in a segmentation fault


def test_values_of_variable_length_are_ignored_if_not_needed(stored: Any, sc: Any) -> None:
    path = stored("h5ad")
    with h5py.File(path, "r+") as file:
        file.require_group("uns").create_dataset("lists", (3,), dtype=h5py.vlen_dtype("f4"))
    pair(sc, path)


def test_an_element_that_is_listed_but_missing_is_reported() -> None:
    class Damaged(dict[str, Any]):
        def __contains__(self, key: object) -> bool:
            return key == "obsm"

    with pytest.raises(
        FormatError, match=r"st\.obsm: .* got ValueError: 'spatial' is listed, but cannot be found"
    ):
        group_in({"obsm": Damaged(spatial=1)}, "obsm", "st")


def test_coordinates_of_far_more_cells_are_not_read(stored: Any) -> None:
    path = stored("h5ad")
    with h5py.File(path, "r+") as file:
        attributes = dict(file["obsm/spatial"].attrs)
        del file["obsm/spatial"]
        file.create_dataset("obsm/spatial", (2**40, 2), dtype="f8", chunks=(64, 2)).attrs.update(attributes)
    obsm = open_input(path, argument="st").obsm
    with pytest.raises(FormatError, match=r"20 cells, got 1,099,511,627,776 rows\. The file is damaged"):
        obsm["spatial"]


@pytest.mark.parametrize("kind", ["zarr", "v3.zarr"])
@pytest.mark.parametrize("element", ["X/data", "X/indices", "obsm/spatial", "var/_index"])
def test_chunks_of_zarr_that_cannot_be_decompressed(kind: str, element: str, stored: Any, sc: Any) -> None:
    path = stored(kind)
    files = [one for one in (path / element).rglob("*") if one.is_file() and one.name[0] not in ".z"]
    for one in files:
        one.write_bytes(b"\x02\x01\x21\x08" + b"\xff" * 40)
    assert files
    with pytest.raises(FormatError, match="expected an element that can be read"):
        pair(sc, path)


@pytest.mark.parametrize(
    ("element", "value", "message"),
    [
        ("X", h5py.Empty("f4"), r"\.X: expected a two-dimensional matrix, .* got Dataset of shape None"),
        (
            "obs/_index",
            h5py.Empty("S4"),
            r"obs: expected .* (got names in an array of shape None|Empty datasets cannot be sliced)",
        ),
        (
            "obs/_index",
            5.0,
            r"obs: expected .* (got names in an array of shape \(\)|Field names only allowed)",
        ),
        ("obs/area", np.zeros(20, "V3"), r"obs\['area'\]: expected a table .* got values of type \|V3"),
        ("var/kind", np.zeros(8, "V3"), r"var\['kind'\]: expected a table .* got values of type \|V3"),
    ],
)
def test_elements_of_no_shape_or_an_odd_type(
    element: str, value: Any, message: str, sc: anndata.AnnData, stored: Callable[[str], Path]
) -> None:
    path = stored("h5ad")
    with h5py.File(path, "r+") as file:
        attributes = dict(file[element].attrs) if element != "X" else {}
        del file[element]
        file[element] = value
        file[element].attrs.update(attributes)
    with pytest.raises((FormatError, InputError), match=message):
        pair(sc, path).st.obs["area"]


@pytest.mark.parametrize("barcodes", ["empty", "group", "endless"])
def test_barcodes_that_are_not_a_list(barcodes: str, tmp_path: Path) -> None:
    path = tmp_path / "matrix.h5"
    message = r"\.obs: expected a table .* got names in an array of shape None"
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        if barcodes == "empty":
            group["barcodes"] = h5py.Empty("S4")
        elif barcodes == "group":
            group.create_group("barcodes")
        else:
            group.create_dataset("barcodes", (2**50,), "S4", chunks=(8,))
            message = r"\.obs_names: expected an element that fits into memory, got MemoryError"
        group["features/name"], group["features/id"] = np.array([b"A", b"B"]), np.array([b"a", b"b"])
        group["data"], group["indices"], group["indptr"] = np.ones(2), np.array([0, 1]), np.array([0, 1, 2])
    with pytest.raises(FormatError, match=message):
        open_input(path, argument="sc").obs.names()


def test_sparse_values_of_half_precision_are_read_in_any_order(stored: Any, sc: Any) -> None:
    path = stored("h5ad")
    expected = pair(sc, path).st.dense(slice(None))
    with h5py.File(path, "r+") as file:
        values, indices, indptr = (file[f"X/{name}"][:] for name in ("data", "indices", "indptr"))
        for start, stop in itertools.pairwise(indptr):
            values[start:stop], indices[start:stop] = values[start:stop][::-1], indices[start:stop][::-1]
        file["X/indices"][:] = indices
        del file["X/data"]
        file["X/data"] = values.astype(np.float16)
    np.testing.assert_allclose(pair(sc, path).st.dense(slice(None)), expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "element", "said"),
    [
        ("tissue.h5", "matrix", "expected a 10x file with a matrix and its barcodes"),
        ("tissue.h5", "matrix/features", r"\.features: expected elements by their names, got a single array"),
        ("tissue.h5mu", "mod", r"\.mod: expected elements by their names, got a single array"),
        ("tissue.h5mu", "mod/rna", "expected .* with obs and var, got a store with nothing in it"),
        ("tissue.h5ad", "obs", r"\.obs: expected an element that can be read"),
        ("tissue.h5ad", "var", r"\.var: expected an element that can be read"),
        ("tissue.h5ad", "uns", r"\.uns: expected elements by their names, got a single array"),
    ],
)
def test_a_large_array_in_place_of_a_group_is_not_read(
    name: str, element: str, said: str, stored: Any, sc: Any, tmp_path: Path
) -> None:
    path = tmp_path / name
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            group = file.create_group("matrix")
            group.update({"data": [1.0], "indices": [0], "indptr": [0, 1], "barcodes": np.array([b"a"])})
            group["features/name"] = group["features/id"] = np.array([b"A"])
    else:
        with h5py.File(stored("h5ad")) as whole, h5py.File(path, "w") as file:
            target = file.create_group("mod/rna") if path.suffix == ".h5mu" else file
            for key in whole:
                whole.copy(key, target)
    with h5py.File(path, "r+") as file:
        attributes = dict(file[element].attrs)
        del file[element]
        file.create_dataset(element, (2**40,), "u1", chunks=(2**16,)).attrs.update(attributes)
    with pytest.raises(FormatError, match=said):
        pair(sc, path)


def test_numbers_of_another_byte_order(sc: anndata.AnnData, stored: Callable[[str], Path]) -> None:
    path = stored("h5ad")
    with h5py.File(path, "r+") as file:
        values, attributes = file["obs/area"][()], dict(file["obs/area"].attrs)
        del file["obs/area"]
        file["obs/area"] = values.astype(values.dtype.newbyteorder(">"))
        file["obs/area"].attrs.update(attributes)
    for tissue in (path, anndata.read_h5ad(path)):
        made = pair(sc, tissue)
        area = made.st.obs["area"]
        assert area.dtype.isnative
        np.testing.assert_array_equal(area[area > 5], np.arange(6.0, 20.0))
