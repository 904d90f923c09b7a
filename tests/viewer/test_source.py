"""A file that is moved, replaced or shortened while it is displayed is no longer displayed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from cellweft.viewer import view
from cellweft.viewer.source import WatchedSource

Ask = Callable[..., Any]
API = (
    "session",
    *(f"datasets/0/{what}" for what in ("positions", "genes", "column?name=region", "cell?index=1")),
)


def gone(store: Path) -> None:
    store.rename(store.with_suffix(".moved"))


def replaced(store: Path) -> None:
    other = store.with_suffix(".other")
    if store.is_dir():
        shutil.copytree(store, other)
        shutil.rmtree(store)
    else:
        shutil.copy(store, other)
    other.rename(store)


def shortened(store: Path) -> None:
    if store.is_dir():
        for file in [one for one in (store / "X").rglob("*") if one.is_file() and one.name != "zarr.json"]:
            file.unlink()
    else:
        os.truncate(store, store.stat().st_size // 2)


@pytest.mark.parametrize("change", [gone, replaced, shortened])
@pytest.mark.parametrize("kind", ["zarr", "h5ad"])
def test_changed_files_are_no_longer_shown(
    imputed: AnnData, write_result: Any, tmp_path: Path, ask: Ask, kind: str, change: Callable[[Path], None]
) -> None:
    store = write_result(imputed, tmp_path / f"a.{kind}")
    path = "/api/datasets/0/values?gene=Gene{}&layer=imputed"
    with view(store, open_browser=False, block=False) as made:
        assert ask(made, path.format(1)).status == 200
        change(store)
        replies = [ask(made, path.format(number)) for number in (1, 8)]
        replies += [ask(made, f"/api/{one}") for one in API]
        replies.append(ask(made, "/api/datasets/0/compare", data=bytes([1, *[0] * 7])))
        for reply in replies:
            assert reply.status == 410
            assert reply.told["error"]["where"] == str(store)
            assert "as it was when cellweft view opened it" in reply.told["error"]["expected"]
            assert reply.told["error"]["fix"].startswith("Restart cellweft view to")


def test_changes_of_the_tissue_are_detected_too(
    imputed: AnnData, counts: AnnData, write_result: Any, tmp_path: Path, ask: Ask
) -> None:
    store, tissue = write_result(imputed, tmp_path / "a.zarr"), tmp_path / "tissue.h5ad"
    counts.write_h5ad(tissue)
    with view(store, tissue=tissue, open_browser=False, block=False) as made:
        path = "/api/datasets/0/values?gene=Gene0&layer=measured"
        assert ask(made, path).status == 200
        tissue.unlink()
        reply = ask(made, path)
        assert (reply.status, reply.told["error"]["got"]) == (410, "nothing at this path")


@pytest.mark.slow
def test_a_chunk_shortened_in_place_is_not_read_as_zeros(
    imputed: AnnData, write_result: Any, tmp_path: Path, ask: Ask
) -> None:
    store = write_result(imputed, tmp_path / "a.zarr")
    with view(store, open_browser=False, block=False) as made:
        for file in [one for one in (store / "X").rglob("*") if one.is_file() and one.name != "zarr.json"]:
            os.truncate(file, file.stat().st_size // 2)
        assert ask(made, "/api/datasets/0/values?gene=Gene1&layer=imputed").status == 410


def test_hidden_files_of_the_system_do_not_matter(
    imputed: AnnData, write_result: Any, tmp_path: Path, ask: Ask
) -> None:
    store = write_result(imputed, tmp_path / "a.zarr")
    with view(store, open_browser=False, block=False) as made:
        (store / "X" / ".DS_Store").write_text("seen")
        assert ask(made, "/api/datasets/0/values?gene=Gene1&layer=imputed").status == 200


def test_changes_of_data_in_memory_are_not_checked(imputed: AnnData, ask: Ask) -> None:
    assert WatchedSource("AnnData in memory").change(closely=True) is None
    with view(imputed, open_browser=False, block=False) as made:
        reply = ask(made, "/api/datasets/0/values?gene=Gene1&layer=imputed")
        np.testing.assert_array_equal(reply.values(), np.asarray(imputed.X)[:, 1])
