"""Public datasets are downloaded once (here from a local server), checked and read."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellweft.data import public
from cellweft.data.public import DATASETS, list_public, load_public
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.errors import FormatError, MissingFileError, ServiceError, SettingError


class Handler(SimpleHTTPRequestHandler):
    """A server of a folder that records the requested paths."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Print no log."""


@pytest.fixture
def served(tmp_path: Path, tissue: SimulatedTissue, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A small embryo dataset on a local server; returns the requested paths."""
    pytest.importorskip("pooch")
    folder = tmp_path / "served"
    folder.mkdir()
    tissue.st.write_h5ad(folder / "embryo.h5ad")
    handler = type("Counting", (Handler,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/embryo.h5ad"
    digest = hashlib.sha256((folder / "embryo.h5ad").read_bytes()).hexdigest()
    known = replace(DATASETS["embryo_seqfish"], url=url, sha256=digest)
    monkeypatch.setitem(public.DATASETS, "embryo_seqfish", known)
    yield handler.asked
    server.shutdown()
    server.server_close()


def test_a_dataset_is_downloaded_once(served: list[str], tissue: SimulatedTissue, tmp_path: Path) -> None:
    for _ in range(2):
        loaded = load_public("embryo_seqfish", cache=tmp_path / "cache")
        np.testing.assert_array_equal(loaded.X.toarray(), tissue.st.X.toarray())
    assert served == ["/embryo.h5ad"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["embryo.h5ad"]


def test_a_file_that_differs_from_the_published_one_is_refused(
    served: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(public.DATASETS["embryo_seqfish"], sha256="0" * 64)
    monkeypatch.setitem(public.DATASETS, "embryo_seqfish", other)
    with pytest.raises(
        ServiceError, match=r"published checksum, got .*hash.*Try again later, or download it"
    ):
        load_public("embryo_seqfish", cache=tmp_path / "cache")
    assert served
    assert not list((tmp_path / "cache").iterdir())


def test_a_server_that_does_not_answer(
    served: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = replace(public.DATASETS["embryo_seqfish"], url="http://127.0.0.1:9/embryo.h5ad")
    monkeypatch.setitem(public.DATASETS, "embryo_seqfish", gone)
    with pytest.raises(ServiceError, match=r"embryo_seqfish \(http://127.0.0.1:9/embryo.h5ad\): expected"):
        load_public("embryo_seqfish", cache=tmp_path / "cache")
    assert not served


def test_an_existing_file_is_read(tissue: SimulatedTissue, tmp_path: Path) -> None:
    tissue.st.write_h5ad(tmp_path / "mine.h5ad")
    assert load_public("cortex_osmfish", path=tmp_path / "mine.h5ad").shape == tissue.st.shape
    with pytest.raises(MissingFileError, match=r"path: .*osmFISH, .* is at http://linnarssonlab.org"):
        load_public("cortex_osmfish", path=tmp_path / "nowhere.h5ad")
    (tmp_path / "text.h5ad").write_text("cell,gene")
    with pytest.raises(FormatError, match=r"expected an .h5ad file"):
        load_public("cortex_osmfish", path=tmp_path / "text.h5ad")


def test_a_dataset_without_a_checksum_must_be_downloaded_by_hand() -> None:
    with pytest.raises(
        SettingError, match=r"path: expected a file of cortex_starmap.*starmapresources.*pass"
    ):
        load_public("cortex_starmap")
    with pytest.raises(SettingError, match=r"name: .*embryo_seqfish.*got 'embryo'"):
        load_public("embryo")


def test_every_dataset_has_a_source() -> None:
    table = list_public()
    assert table.index.tolist() == list(DATASETS)
    assert table["page"].str.startswith("http").all()
    for one in DATASETS.values():
        assert bool(one.url) == bool(one.sha256)
        assert len(one.sha256) in (0, 64)
        assert one.kind in ("tissue", "reference")
