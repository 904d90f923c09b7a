"""Compressed arrays: in zarr and HDF5, and by themselves in a file."""

from __future__ import annotations

import math
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray


def create_array(root: Any, key: str, *, shape: tuple[int, ...], dtype: Any, chunk: tuple[int, ...]) -> Any:
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
    return root.create_array(key, compressors=[_blosc(level=3)], fill_value=0, **place)


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
