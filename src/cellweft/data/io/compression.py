"""Compressed arrays: in zarr and HDF5, and by themselves in a file."""

from __future__ import annotations

import math
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray


def create_array(
    root: Any,
    key: str,
    *,
    shape: tuple[int, ...],
    dtype: Any,
    chunk: tuple[int, ...],
    shard: tuple[int, ...] | None = None,
) -> Any:
    """Make an array of zeros that is compressed by chunks, and return it.

    Parameters
    ----------
    root
        Group of zarr or of HDF5.
    key
        Name of the array in it.
    shape, dtype
        Of the array.
    chunk
        What is compressed together.
    shard
        What goes into one file: whole chunks. Only zarr's format 3 knows it; elsewhere each chunk stands for
        itself, as by default.

    Notes
    -----
    In zarr blosc's zstd, in HDF5 gzip, which every HDF5 library reads.
    """
    place: dict[str, Any] = {"shape": shape, "dtype": dtype}
    if math.prod(shape):  # HDF5 cannot divide what is empty
        place["chunks"] = tuple(min(one, length) for one, length in zip(chunk, shape, strict=True))
    if isinstance(root, h5py.Group):
        packing = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if "chunks" in place else {}
        return root.create_dataset(key, **place, **packing)
    if root.metadata.zarr_format == 2:
        return root.create_array(key, compressors=[_blosc(level=3)], fill_value=0, **place)
    from zarr.codecs import BloscCodec

    if shard is not None and "chunks" in place:
        steps = zip(shard, shape, place["chunks"], strict=True)
        shard = tuple(math.ceil(min(one, length) / step) * step for one, length, step in steps)
        place["shards"] = None if shard == place["chunks"] else shard
    codec = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
    return root.create_array(key, compressors=[codec], fill_value=0, **place)


def save_packed(file: IO[bytes], values: NDArray[Any]) -> None:
    """Write an array of one dimension, compressed, where a file stands: `load_packed` reads it."""
    packed = _blosc(level=1).encode(np.ascontiguousarray(values)) if len(values) else b""
    np.save(file, np.frombuffer(packed, dtype=np.uint8), allow_pickle=False)


def load_packed(file: IO[bytes], dtype: Any) -> NDArray[Any]:
    """Return the array that stands next in a file, as its numbers were given to `save_packed`.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> save_packed(file, np.array([1.5, 0.25]))
    >>> _ = file.seek(0)
    >>> load_packed(file, "float64")
    array([1.5 , 0.25])
    """
    packed = np.load(file, allow_pickle=False)
    return np.frombuffer(_blosc().decode(packed) if len(packed) else b"", dtype=dtype)


def _blosc(*, level: int = 1) -> Any:
    from numcodecs import Blosc

    return Blosc(cname="zstd", clevel=level, shuffle=Blosc.SHUFFLE)
