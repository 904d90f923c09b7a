"""Zarr stores written by cellweft: their format, and the manifest to check that they are complete.

zarr reads missing chunks as zeros, so that a partially copied store looks complete. The manifest, an
attribute of the store's root, lists the chunks that were written.
"""

from __future__ import annotations

import base64
import contextlib
import math
import os
import warnings
import zlib
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anndata
import h5py
import numpy as np
import zarr
from zarr.storage import LocalStore

from cellweft._errors import FormatError
from cellweft._text import shorten
from cellweft._typing import PathLike

ZarrFormat: TypeAlias = Literal[2, 3]
"""Version of zarr's format."""

ZARR_FORMAT: ZarrFormat = 3
"""Default format of new stores."""

MANIFEST = "cellweft-manifest"
"""Name of the root attribute with the manifest."""

_SCHEMA = 1


@contextlib.contextmanager
def written_store(
    path: Path, *, zarr_format: ZarrFormat = ZARR_FORMAT, goes_on: bool = False
) -> Iterator[zarr.Group]:
    """Open the root of a store for writing; at the end, write its manifest and consolidate its metadata.

    Parameters
    ----------
    path
        Path of the existing or new store.
    zarr_format
        Format of a new store.
    goes_on
        Whether to continue an existing store, in its format.

    Notes
    -----
    Checksums are computed when chunks are written. Chunks from another process or an earlier run are read
    once for this, at the end.
    """
    store = _SummingStore(path)
    mode: Literal["r+", "w"] = "r+" if goes_on else "w"
    form = None if goes_on else zarr_format
    root = zarr.open_group(store, mode=mode, zarr_format=form, use_consolidated=False)
    yield root
    with quiet_zarr():
        root.attrs[MANIFEST] = _manifest(root, path, store.sums)
        zarr.consolidate_metadata(store)


@contextlib.contextmanager
def quiet_zarr() -> Iterator[None]:
    """Suppress warnings of anndata and zarr about future changes in their use of zarr."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?i).*zarr.*", category=UserWarning)
        yield


def write_quietly(group: Any, key: str, value: Any) -> None:
    """Write an element as AnnData does, without its warnings about future changes in zarr.

    Parameters
    ----------
    group, key
        HDF5 or zarr group to write into, and name of the element, or its path in subgroups.
    value
        Anything that AnnData can store.
    """
    above, _, name = key.rpartition("/")
    if above:
        group = group.require_group(above)  # anndata 0.13 takes no paths
    with quiet_zarr():
        anndata.io.write_elem(group, name or key, value)


def format_of(path: PathLike) -> int:
    """Return the format of a store."""
    return int(zarr.open_group(Path(path), mode="r").metadata.zarr_format)


def create_array(
    root: Any,
    key: str,
    *,
    shape: tuple[int, ...],
    dtype: Any,
    chunk: tuple[int, ...],
    shard: tuple[int, ...] | None = None,
) -> Any:
    """Create and return an array of zeros with compressed chunks.

    Parameters
    ----------
    root
        Group of zarr or of HDF5.
    key
        Name of the array in it.
    shape, dtype
        Shape and data type of the array.
    chunk
        Shape of a chunk.
    shard
        Shape of a shard (file): whole chunks. Only supported by zarr's format 3; otherwise, and by default,
        each chunk is separate.

    Notes
    -----
    Compression is blosc's zstd in zarr, and gzip in HDF5, which all HDF5 libraries can read.
    """
    place: dict[str, Any] = {"shape": shape, "dtype": dtype}
    if math.prod(shape):  # HDF5 cannot chunk empty arrays
        place["chunks"] = tuple(min(size, length) for size, length in zip(chunk, shape, strict=True))
    if isinstance(root, h5py.Group):
        packing = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if "chunks" in place else {}
        return root.create_dataset(key, **place, **packing)
    if root.metadata.zarr_format == 2:
        from numcodecs import Blosc

        return root.create_array(
            key, compressors=[Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE)], fill_value=0, **place
        )
    from zarr.codecs import BloscCodec

    if shard is not None and "chunks" in place:
        steps = zip(shard, shape, place["chunks"], strict=True)
        shard = tuple(math.ceil(min(size, length) / step) * step for size, length, step in steps)
        place["shards"] = None if shard == place["chunks"] else shard
    codec = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
    return root.create_array(key, compressors=[codec], fill_value=0, **place)


def copy_store(source: PathLike, target: Path, *, zarr_format: ZarrFormat) -> None:
    """Copy a store to another format, with one chunk in memory; values, chunks and attributes stay the same.

    Parameters
    ----------
    source, target
        Path of the store, and path of the copy, which must not exist.
    zarr_format
        Format of the copy.
    """
    root = zarr.open_group(Path(source), mode="r")
    with written_store(target, zarr_format=zarr_format) as copy:
        copy.attrs.update({key: value for key, value in dict(root.attrs).items() if key != MANIFEST})
        for name, node in sorted(root.members(max_depth=None)):
            if isinstance(node, zarr.Group):
                node_copy: Any = copy.create_group(name)
            else:
                kind = str if node.dtype.kind in "OT" else node.dtype
                node_copy = create_array(copy, name, shape=node.shape, dtype=kind, chunk=node.chunks)
                for place in np.ndindex(*_grid(node.shape, node.chunks)):
                    steps = zip(place, node.chunks, strict=True)
                    part = tuple(slice(number * step, (number + 1) * step) for number, step in steps)
                    node_copy[part] = node[part]
            node_copy.attrs.update(dict(node.attrs))


def is_store(path: PathLike) -> bool:
    """Return whether a folder is a zarr store."""
    return any((Path(path) / name).exists() for name in ("zarr.json", ".zgroup"))


def check_manifest(path: PathLike, *, deep: bool = False) -> int:
    """Return the number of chunks in the manifest of a store; raise `FormatError` if some are missing.

    Parameters
    ----------
    path
        The store. Stores without a manifest, such as those of other programs, are not checked, nor are arrays
        that were since removed, or replaced by others with another shape, type or chunks.
    deep
        Whether to also read all chunks and compare checksums; otherwise, only the folders are listed.

    Raises
    ------
    FormatError
        Chunks that were written are missing or, with ``deep``, have other contents.
    """
    store = Path(path)
    root = zarr.open_group(store, mode="r")
    listed = _manifest_of(root)
    there, n_chunks = _files(store) if listed else (), 0
    for name, entry in listed.get("arrays", {}).items():
        array = root.get(name)
        if not isinstance(array, zarr.Array) or not _fits(array, entry):
            continue
        keys = _keys(array)
        bits = np.frombuffer(_unpacked(entry["written"]), dtype=np.uint8)
        written = [keys[place] for place in np.flatnonzero(np.unpackbits(bits, count=len(keys)))]
        n_chunks += len(written)
        missing = [key for key in written if key not in there]
        if missing:
            raise _damaged(store, name, missing, f"all {len(written):,} chunks that were written", "missing")
        if deep:
            sums = np.frombuffer(_unpacked(entry["crc32"]), dtype="<u4").tolist()
            pairs = zip(written, sums, _sums(store, written), strict=True)
            other = [key for key, written_sum, read_sum in pairs if written_sum != read_sum]
            if other:
                raise _damaged(store, name, other, "chunks with the bytes that were written", "changed")
    return n_chunks


def absent_chunks(array: zarr.Array[Any]) -> list[tuple[slice, ...]]:
    """Return the parts of an array without a chunk in its folder, which are read as the fill value.

    Parameters
    ----------
    array
        Array of a store in a folder; for other stores, the result is empty.

    Returns
    -------
    list of tuple of slice
        Slices of each part along all axes, in order. Empty for an array in the manifest of its store, which
        was checked when the store was opened and shows which chunks were never written.
    """
    store = array.store
    if not isinstance(store, LocalStore) or not math.prod(array.shape):
        return []
    folder = Path(store.root) / array.path
    there = _files(folder)
    steps = array.shards or array.chunks
    grid = np.ndindex(*_grid(array.shape, steps))
    absent = [place for place in grid if array.metadata.encode_chunk_key(place) not in there]
    if not absent or _is_listed(array):
        return []
    sizes = [zip(place, steps, array.shape, strict=True) for place in absent]
    return [
        tuple(slice(n * step, min((n + 1) * step, end)) for n, step, end in chunk_sizes)
        for chunk_sizes in sizes
    ]


class ArrayWatch:
    """Detects changes of an array in a folder since this object was created; other stores are not watched.

    zarr opens the file of a chunk when it reads the chunk. If the store was moved, removed or replaced in the
    meantime, it reads zeros, or values of the new store.

    Parameters
    ----------
    array
        The array.
    """

    def __init__(self, array: Any) -> None:
        self._file: Path | None = None
        if isinstance(array, zarr.Array) and isinstance(array.store, LocalStore):
            name = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
            self._file = Path(array.store.root) / array.path / name
            self._then = self._now(self._file)

    @contextlib.contextmanager
    def reading(self, where: str) -> Iterator[None]:
        """Check the array after the context has read from it, with or without an error.

        Parameters
        ----------
        where
            Name of the array in the error.

        Raises
        ------
        FormatError
            The array no longer exists, or was replaced.
        """
        try:
            yield
        finally:
            self._check(where)

    def _check(self, where: str) -> None:
        now = None if self._file is None else self._now(self._file)
        if self._file is not None and now != self._then:
            raise FormatError(
                where,
                expected="a zarr store that has not changed since it was opened",
                got="nothing at its path" if now is None else "a store that was replaced in the meantime",
                fix="Read the data again from the start once no program is writing to the store.",
            )

    @staticmethod
    def _now(file: Path) -> tuple[int, ...] | None:
        try:
            status = file.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _is_listed(array: zarr.Array[Any]) -> bool:
    """Return whether the manifest of an array's store contains the array in its current form."""
    root = zarr.open(array.store, mode="r")
    arrays = _manifest_of(root).get("arrays", {}) if isinstance(root, zarr.Group) else {}
    return array.path in arrays and _fits(array, arrays[array.path])


class _SummingStore(LocalStore):
    """A store in a folder that keeps the checksums of written data, by key."""

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self.sums: dict[str, int] = {}

    async def set(self, key: str, value: Any) -> None:
        await super().set(key, value)
        self.sums[key] = zlib.crc32(value.as_numpy_array())

    async def delete(self, key: str) -> None:
        await super().delete(key)
        self.sums.pop(key, None)


def _manifest(root: zarr.Group, path: Path, sums: dict[str, int]) -> dict[str, Any]:
    """Return the layout of each array, which chunks exist (one bit each) and their checksums."""
    there, arrays = _files(path), {}
    for name, array in sorted(root.members(max_depth=None)):
        if isinstance(array, zarr.Array):
            keys = _keys(array)
            written = np.array([key in there for key in keys], dtype=bool)
            names = [key for key, is_there in zip(keys, written, strict=True) if is_there]
            left = [key for key in names if key not in sums]
            sums.update(zip(left, _sums(path, left), strict=True))
            arrays[name] = _layout(array) | {
                "written": _packed(np.packbits(written).tobytes()),
                "crc32": _packed(np.array([sums[key] for key in names], dtype="<u4").tobytes()),
            }
    return {"schema_version": _SCHEMA, "arrays": arrays}


def _manifest_of(root: zarr.Group) -> Mapping[str, Any]:
    """Return the manifest of a store; empty if it has none in this format."""
    listed: Any = root.attrs.get(MANIFEST)
    is_known = isinstance(listed, Mapping) and listed.get("schema_version") == _SCHEMA
    return listed if is_known else {}


def _fits(array: zarr.Array[Any], entry: Mapping[str, Any]) -> bool:
    """Return whether an array has the layout in the manifest."""
    layout = _layout(array)
    return layout == {key: entry.get(key) for key in layout}


def _layout(array: zarr.Array[Any]) -> dict[str, Any]:
    chunks = list(array.shards or array.chunks)
    return {"shape": list(array.shape), "dtype": str(array.dtype), "chunks": chunks}


def _keys(array: zarr.Array[Any]) -> list[str]:
    """Return the files of an array's chunks (or shards), in order, relative to the store."""
    grid = _grid(array.shape, array.shards or array.chunks)
    return [f"{array.path}/{array.metadata.encode_chunk_key(place)}" for place in np.ndindex(*grid)]


def _grid(shape: tuple[int, ...], steps: tuple[int, ...]) -> list[int]:
    return [math.ceil(length / step) for length, step in zip(shape, steps, strict=True)]


def _files(store: Path) -> Collection[str]:
    """Return all files of a store, relative to it."""
    files: set[str] = set()
    for folder, _, names in os.walk(store):
        start = Path(folder).relative_to(store).as_posix()
        files.update(name if start == "." else f"{start}/{name}" for name in names)
    return files


def _sums(store: Path, keys: Collection[str]) -> list[int]:
    """Return the checksums of files, read by several threads."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda key: zlib.crc32((store / key).read_bytes()), keys))


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode("ascii")


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def _damaged(store: Path, name: str, keys: list[str], expected: str, problem: str) -> FormatError:
    keys = [key.removeprefix(f"{name}/") for key in keys]
    return FormatError(
        f"{store}, {name}",
        expected=expected,
        got=f"{len(keys):,} {problem} ({shorten(keys, most=5)})",
        fix="Copy the whole store again from the original, or compute the result again.",
    )
