"""Public datasets of single cells and of tissues: their addresses, and download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anndata
import pandas as pd
from anndata import AnnData

from cellweft._errors import (
    MissingFileError,
    ServiceError,
    SettingError,
    arg,
    check_choice,
    checks_kinds,
    require,
)
from cellweft.data.io.damaged import reading

_MIRROR = "https://scverse-exampledata.s3.amazonaws.com/squidpy/figshare/"


@dataclass(frozen=True, kw_only=True)
class PublicDataset:
    """A public dataset.

    Attributes
    ----------
    kind
        "tissue", with coordinates, or "reference".
    what
        Technology, tissue, publication.
    shape
        Number of cells or spots, and of genes.
    page
        Web page of the dataset.
    url, sha256
        Address and checksum of the file, from a public source; empty if no source provides both, so that the
        file must be downloaded manually.
    """

    kind: str
    what: str
    shape: tuple[int, int]
    page: str
    url: str = ""
    sha256: str = ""


def _squidpy(file: str, sha256: str, *, kind: str, what: str, shape: tuple[int, int]) -> PublicDataset:
    """Return a dataset of squidpy, with its address and checksum (squidpy/datasets/datasets.yaml)."""
    page = "https://squidpy.readthedocs.io/en/stable/api.html#module-squidpy.datasets"
    return PublicDataset(kind=kind, what=what, shape=shape, page=page, url=f"{_MIRROR}{file}", sha256=sha256)


DATASETS = {
    "embryo_seqfish": _squidpy(
        "seqfish.h5ad",
        "7e544c0ede7538067537da69c52748ad01522ef7fc8691e077fd73c9434019f7",
        kind="tissue",
        what="seqFISH, mouse embryo (Lohoff et al. 2022)",
        shape=(19_416, 351),
    ),
    "hypothalamus_merfish": _squidpy(
        "merfish.h5ad",
        "371723d48413ba76aba49ccf7ea24867b1db940529216fe2902484f5c2a48904",
        kind="tissue",
        what="MERFISH, mouse hypothalamus (Moffitt et al. 2018)",
        shape=(73_655, 161),
    ),
    "hippocampus_slideseq": _squidpy(
        "slideseqv2.h5ad",
        "224a0f2b3d4f6c0ac1583c93bb6bfa910a986df82302c4a927d61883b8b63d8b",
        kind="tissue",
        what="Slide-seqV2, mouse hippocampus (Stickels et al. 2021)",
        shape=(41_786, 4_000),
    ),
    "brain_visium": _squidpy(
        "visium_hne_adata.h5ad",
        "3571e6b84dd32c73ece8ae0bebbd4758e77c6fdd321b2bbe0d4ffa8ed56e1cbe",
        kind="tissue",
        what="10x Visium, coronal section of a mouse brain",
        shape=(2_688, 18_078),
    ),
    "cortex_cells": _squidpy(
        "sc_mouse_cortex.h5ad",
        "3e0a26e1af06c1ea8f53a808ee683bf950de8cc03ee48bd291f95eeca6056aac",
        kind="reference",
        what="single-cell RNA-seq, mouse cortex (Tasic et al. 2018)",
        shape=(21_697, 36_826),
    ),
    "cortex_osmfish": PublicDataset(
        kind="tissue",
        what="osmFISH, mouse somatosensory cortex (Codeluppi et al. 2018)",
        shape=(6_471, 33),
        page="http://linnarssonlab.org/osmFISH/availability/",
    ),
    "cortex_starmap": PublicDataset(
        kind="tissue",
        what="STARmap, mouse visual cortex, 1,020 genes (Wang et al. 2018)",
        shape=(930, 1_020),
        page="https://www.starmapresources.com/data",
    ),
}
"""Datasets of `load_public`, by name."""


def list_public() -> pd.DataFrame:
    """Return a table of the public datasets that `load_public` can load.

    Returns
    -------
    DataFrame
        One row per dataset, indexed by name: ``kind`` ("tissue" or "reference"), ``what``, ``cells``,
        ``genes``, ``downloads`` (whether it is downloaded automatically) and ``page``.

    Examples
    --------
    >>> import cellweft
    >>> cellweft.datasets.list_public().loc["hypothalamus_merfish", "what"]
    'MERFISH, mouse hypothalamus (Moffitt et al. 2018)'
    """
    rows = {
        name: {
            "kind": dataset.kind,
            "what": dataset.what,
            "cells": dataset.shape[0],
            "genes": dataset.shape[1],
            "downloads": bool(dataset.url),
            "page": dataset.page,
        }
        for name, dataset in DATASETS.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


@checks_kinds
def load_public(name: str, *, path: str | Path | None = None, cache: str | Path | None = None) -> AnnData:
    """Load a public dataset. It is downloaded once and checked against its published checksum.

    Parameters
    ----------
    name
        Name of a dataset from `list_public`.
    path
        Your own ``.h5ad`` file of the dataset, which is read instead of downloading. Required if no public
        source provides both an address and a checksum.
    cache
        Folder for downloads; by default cellweft's folder in your cache directory.

    Returns
    -------
    AnnData
        The contents of the file. `cellweft.pair` detects the scale of its values and its coordinates.

    Raises
    ------
    SettingError
        There is no such dataset, or it has to be downloaded manually and ``path`` is missing.
    MissingFileError, FormatError
        There is no file at ``path``, or it cannot be read.
    MissingExtraError
        pooch is not installed (the extra ``datasets``).
    ServiceError
        The download failed, or the downloaded file does not match the checksum.
    """
    check_choice("name", name, tuple(DATASETS))
    dataset = DATASETS[name]
    if path is not None:
        if not Path(path).exists():
            raise MissingFileError(
                "path", expected="an existing file", got=str(path), fix=f"{dataset.what} is at {dataset.page}"
            )
        return _read(Path(path))
    if not dataset.url:
        raise SettingError(
            "path",
            expected=f"a file of {name}, as no source states both its address and its checksum",
            got="none",
            fix=f"Download it from {dataset.page} and pass {arg('path', 'FILE')}.",
        )
    return _read(_downloaded(name, dataset, cache))


def _read(path: Path) -> AnnData:
    with reading(str(path), expected="an .h5ad file"):
        return anndata.read_h5ad(path)


def _downloaded(name: str, dataset: PublicDataset, cache: str | Path | None) -> Path:
    """Return the file of a dataset, from the cache or downloaded into it."""
    pooch = require(
        "pooch", "datasets", otherwise=f"Or download {dataset.url} and pass {arg('path', 'FILE')}."
    )
    folder = Path(pooch.os_cache("cellweft")) / "datasets" if cache is None else Path(cache)
    try:
        file = pooch.retrieve(
            dataset.url,
            known_hash=f"sha256:{dataset.sha256}",
            fname=dataset.url.rsplit("/", 1)[-1],
            path=folder,
            downloader=pooch.HTTPDownloader(timeout=60),
        )
    except (OSError, ValueError) as error:  # requests raises OSError; a wrong checksum is a ValueError
        raise ServiceError(
            f"{name} ({dataset.url})",
            expected="the file with the published checksum",
            got=" ".join(str(error).split()),
            fix=f"Try again later, or download it from {dataset.page} and pass {arg('path', 'FILE')}.",
        ) from error
    return Path(file)
