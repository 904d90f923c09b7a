"""Damage: of bytes, of the structure of an HDF5 file, and of the files of a zarr store or a folder."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

_TOKENS = (
    *(b"", b"\0", b"\xff\xfe", b"\n", b"\r\n", b",", b"\t", b'"', b"'", b"-", b".", b"%", b"#", b">"),
    *(b"nan", b"NaN", b"inf", b"-1", b"1e400", b"99999999999999999999", b"0x10", b"1,5", b"None"),
    *(b"\xed\xa0\x80", b"\xc3\x28"),
)
_ODD_JSON = (None, -1, 0, 1e308, 2**70, "", "x", "\ud800", [], [1], {}, {"a": 1}, True, [[["deep"]]])


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with one to four faults: truncated, flipped, left out, doubled, or with an odd token."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        place, length = rng.randrange(len(found) + 1), rng.choice((1, 2, 8, 64, 512))
        kind = rng.randrange(6)
        if kind == 0:
            del found[place:]
        elif kind == 1 and place < len(found):
            found[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del found[place : place + length]
        elif kind == 3:
            found[place:place] = found[place : place + length]
        elif kind == 4:
            found[place : place + rng.choice((0, 1, length))] = rng.choice(_TOKENS)
        else:
            found[place : place + length] = rng.randbytes(min(length, max(len(found) - place, 0)))
    return bytes(found)


def damage_file(path: Path, rng: random.Random) -> None:
    """Damage the bytes of a file in place."""
    path.write_bytes(damaged_bytes(path.read_bytes(), rng))


def damage_folder(folder: Path, rng: random.Random) -> None:
    """Damage one file of a folder or store: its bytes, its JSON, or its existence."""
    files = sorted(one for one in folder.rglob("*") if one.is_file())
    path = rng.choice(files)
    kind = rng.random()
    if kind < 0.15:
        path.unlink()
    elif kind < 0.2:
        path.unlink()
        path.mkdir()
    elif kind < 0.3:
        shutil.copyfile(rng.choice(files), folder / "other")
        (folder / "other").replace(path)
    elif kind < 0.7 and path.suffix in (".h5", ".h5ad"):
        damage_hdf5(path, rng)
    elif kind < 0.8 and path.suffix == ".gz":
        path.write_bytes(gzip.compress(damaged_bytes(gzip.decompress(path.read_bytes()), rng)))
    elif path.suffix == ".json" or path.name.startswith(".z"):
        try:
            path.write_text(json.dumps(_damaged_json(json.loads(path.read_text()), rng)))
        except ValueError:
            damage_file(path, rng)
    else:
        damage_file(path, rng)


def _damaged_json(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        if rng.random() < 0.2:
            return {name: one for name, one in value.items() if name != key}
        return value | {key: _damaged_json(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], _damaged_json(value[place], rng), *value[place + 1 :]]
    return rng.choice(_ODD_JSON)


def damage_hdf5(path: Path, rng: random.Random) -> None:
    """Change the structure of an HDF5 file in place, or sometimes its bytes."""
    if rng.random() < 0.1:
        return damage_file(path, rng)
    with h5py.File(path, "r+") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(rng.choice((1, 1, 2))):
            names: list[str] = []
            file.visit(names.append)
            if not names:
                return None
            name = rng.choice(names)
            with contextlib.suppress(Exception):  # HDF5 cannot write it, or an earlier change prevents it
                rng.choice(_CHANGES)(file, name, rng)
    return None


def _delete(file: h5py.File, name: str, _rng: random.Random) -> None:
    del file[name]


def _attribute(file: h5py.File, name: str, rng: random.Random) -> None:
    attributes = file[name].attrs
    if not len(attributes):
        return
    key = rng.choice(sorted(attributes))
    if rng.random() < 0.4:
        del attributes[key]
    else:
        kinds = ("csr_matrix", "csc_matrix", "array", "dataframe", "dict", "0.9.9")
        odd = (-1, 2**40, "x", [1, 2], [0, 0], np.nan, ["a", "b"], np.float32(1.5), h5py.Empty("f"))
        attributes[key] = rng.choice((*kinds, *odd))


def _replace(file: h5py.File, name: str, rng: random.Random) -> None:
    attributes = dict(file[name].attrs) if rng.random() < 0.5 else {}
    del file[name]
    if rng.random() < 0.2:
        made: Any = file.create_group(name)
    else:
        odd = (0, -1, "x", b"\xff\xfe", [1.0, 2.0], [[1]], np.zeros((0, 3)), np.ones((2, 3, 4)), [1j], True)
        made = file.create_dataset(name, data=rng.choice((*odd, h5py.Empty("f"))))
    made.attrs.update(attributes)


def _values(file: h5py.File, name: str, rng: random.Random) -> None:
    one = file[name]
    if not isinstance(one, h5py.Dataset) or not one.size or one.dtype.kind not in "iufb":
        return
    values = one[()]
    flat = np.atleast_1d(values).reshape(-1)
    odd = (-1, 0, 1, 2**31 - 1, -(2**31)) if one.dtype.kind in "iu" else (np.nan, np.inf, -1, 1e30, 1e308)
    with np.errstate(all="ignore"):
        flat[rng.randrange(len(flat))] = np.array(rng.choice(odd)).astype(one.dtype)
    one[()] = flat.reshape(np.shape(values))


def _shape(file: h5py.File, name: str, rng: random.Random) -> None:
    one = file[name]
    if not isinstance(one, h5py.Dataset) or not one.ndim:
        return
    values, attributes = one[()], dict(one.attrs)
    changes: tuple[Callable[[Any], Any], ...] = (
        lambda array: array[: len(array) // 2],
        lambda array: array[:-1],
        lambda array: array[:0],
        lambda array: np.concatenate([array, array[:1]]),
        lambda array: array[None],
        lambda array: array.reshape(-1)[0],
        lambda array: array.astype("S4"),
        lambda array: array.astype(complex),
        lambda array: array.astype(np.float16),
        lambda array: array.astype(np.int8),
    )
    try:
        changed = rng.choice(changes)(values)
    except (ValueError, TypeError, IndexError):  # not possible for text
        return
    del file[name]
    made = file.create_dataset(name, data=changed)
    made.attrs.update(attributes)


def _type(file: h5py.File, name: str, rng: random.Random) -> None:
    """Replace a dataset's values by as many values of a type that no writer uses."""
    one = file[name]
    if not isinstance(one, h5py.Dataset) or one.ndim != 1:
        return
    n, attributes = len(one), dict(one.attrs)
    text, bad_text = h5py.string_dtype(), np.array([b"\xff\xfe"] * n, dtype="S2")
    pairs = np.zeros(n, dtype=[("a", "<i4"), ("b", "S2")])
    lists = np.empty(n, dtype=object)
    lists[:] = [np.arange(2)] * n
    kinds: tuple[tuple[Any, Any], ...] = (
        *((bad_text, bad_text.dtype), (bad_text.astype(object), text)),
        *((np.array([""] * n, dtype=object), text), (np.array(["a" * 10_000] * n, dtype=object), text)),
        *((pairs, pairs.dtype), (lists, h5py.vlen_dtype(np.int64)), (np.zeros(n, "V3"), np.dtype("V3"))),
        *((np.zeros(n, bool), np.dtype(bool)), (np.zeros(n, ">f8"), np.dtype(">f8"))),
        *((np.full(n, 2**64 - 1, np.uint64), np.dtype(np.uint64)), (np.zeros((n, 2)), np.dtype("(2,)f8"))),
        (np.zeros(n, np.int8), h5py.enum_dtype({"a": 0, "b": 1}, basetype="i1")),
        (np.array([file.ref] * n, dtype=h5py.ref_dtype), h5py.ref_dtype),
    )
    values, kind = rng.choice(kinds)
    del file[name]
    made = file.create_dataset(name, shape=(n,), dtype=kind)
    made[...] = values
    made.attrs.update(attributes)


def _chunk(file: h5py.File, name: str, rng: random.Random) -> None:
    """Truncate a compressed chunk of a dataset, replace it by noise, or leave all chunks out."""
    one = file[name]
    if not isinstance(one, h5py.Dataset) or not one.size or one.dtype.kind not in "iuf":
        return
    values, attributes = one[()], dict(one.attrs)
    if one.ndim == 0:
        return
    del file[name]
    made = file.create_dataset(name, shape=values.shape, dtype=values.dtype, chunks=True, compression="gzip")
    made.attrs.update(attributes)
    if rng.random() < 0.3:  # read as zeros
        return
    made[...] = values
    number = rng.randrange(made.id.get_num_chunks())
    place = made.id.get_chunk_info(number).chunk_offset
    _, packed = made.id.read_direct_chunk(place)
    odd = (packed[: len(packed) // 2], b"", b"\0", rng.randbytes(len(packed)), packed + packed)
    made.id.write_direct_chunk(place, rng.choice(odd))


def _link(file: h5py.File, name: str, rng: random.Random) -> None:
    """Replace an element by a link: to nothing, another file, another element, its own group."""
    others: list[str] = []
    file.visit(others.append)
    above = name.rpartition("/")[0] or "/"
    kind = rng.randrange(5)
    group = file[above]
    del file[name]
    if kind == 0:
        file[name] = h5py.SoftLink("/nowhere")
    elif kind == 1:
        file[name] = h5py.ExternalLink("nowhere.h5", "/")
    elif kind == 2:
        file[name] = h5py.SoftLink(f"/{name}")
    elif kind == 3:
        file[name] = group
    else:
        other = rng.choice(others)
        if other in file:
            file[name] = file[other]


def _wide(file: h5py.File, name: str, rng: random.Random) -> None:
    """Replace a dataset by one whose stated size far exceeds what is stored."""
    one = file[name]
    if not isinstance(one, h5py.Dataset) or not one.ndim:
        return
    attributes, kind, shape = dict(one.attrs), one.dtype, list(one.shape)
    shape[rng.randrange(len(shape))] = rng.choice((2**20, 2**40, 2**62))
    del file[name]
    made = file.create_dataset(
        name, shape=tuple(shape), dtype=kind, chunks=tuple(min(one, 2**12) for one in shape)
    )
    made.attrs.update(attributes)


_CHANGES = (
    *(_delete, _attribute, _attribute, _replace, _values, _values, _shape),
    *(_type, _type, _chunk, _link, _wide),
)
