"""Folders of vendors: checks before they are read. Reading is tested in tests/test_formats.py."""

import sys
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

from cellweft._errors import FormatError, MissingExtraError, MissingFileError, SettingError
from cellweft.data.io.vendors import read_platform


class Reader:
    """A stand-in for spatialdata-io."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.fails: Exception | None = None

    def xenium(self, path: Path, *, transcripts: bool = True, morphology_mip: bool = True) -> Any:
        return self._made(transcripts=transcripts, morphology_mip=morphology_mip)

    def visium_hd(self, path: Path, *, bin_size: int | None = None) -> Any:
        return self._made(bin_size=bin_size)

    def visium(self, path: Path, *, dataset_id: str | None = None) -> Any:
        return self._made(dataset_id=dataset_id)

    def cosmx(self, path: Path, *, transcripts: bool = True) -> Any:
        made = self._made(transcripts=transcripts)
        made.tables["table"].obsm["global"] = np.ones((2, 2))
        return made

    def _made(self, **asked: Any) -> Any:
        self.asked = asked
        if self.fails is not None:
            raise self.fails
        table = anndata.AnnData(np.ones((2, 1), dtype=np.float32), obsm={"spatial": np.zeros((2, 2))})
        return type("Data", (), {"tables": {"table": table}})


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    made = Reader()
    monkeypatch.setitem(sys.modules, "spatialdata_io", made)  # type: ignore[arg-type]
    return made


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def test_only_parameters_of_the_reader_are_passed(tmp_path: Path, reader: Reader) -> None:
    fill(tmp_path, "experiment.xenium", "x_feature_slice.h5", "filtered_feature_bc_matrix.h5")
    (tmp_path / "spatial").mkdir()
    read_platform("xenium", tmp_path)
    assert reader.asked == {"transcripts": False, "morphology_mip": False}
    read_platform("xenium", str(tmp_path), images=True, transcripts=True)
    assert reader.asked == {"transcripts": True, "morphology_mip": True}
    read_platform("visium_hd", tmp_path)
    assert reader.asked == {"bin_size": 8}
    read_platform("visium_hd", tmp_path, bin_size=16)
    assert reader.asked == {"bin_size": 16}
    read_platform("visium", tmp_path)
    assert reader.asked == {"dataset_id": tmp_path.name}


def test_coordinates_are_those_of_the_slide(tmp_path: Path, reader: Reader) -> None:
    table = read_platform("cosmx", fill(tmp_path, "a_exprMat_file.csv", "a_metadata_file.csv")).tables[
        "table"
    ]
    assert table.obsm["spatial"].tolist() == [[1, 1], [1, 1]]
    assert table.obsm["local"].tolist() == [[0, 0], [0, 0]]


def test_wrong_arguments_are_refused(tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match=r"platform: expected one of 'xenium'.*Did you mean 'visium'"):
        read_platform("visiun", tmp_path)  # type: ignore[arg-type]
    with pytest.raises(MissingFileError, match="expected a folder, got no folder at this path"):
        read_platform("xenium", tmp_path / "none")
    fill(tmp_path, "cell_by_gene.csv")
    with pytest.raises(
        FormatError, match=r"the output of merscope.*got no 'cell_metadata\.csv' among 'cell_by"
    ):
        read_platform("merscope", tmp_path)
    fill(tmp_path, "experiment.xenium")
    reader.fails = ValueError("a file is\nmissing")
    with pytest.raises(
        FormatError, match="that spatialdata-io reads as xenium, got the error: a file is mis"
    ):
        read_platform("xenium", tmp_path)
    monkeypatch.setitem(sys.modules, "spatialdata_io", None)  # type: ignore[arg-type]
    with pytest.raises(MissingExtraError, match=r'pip install "cellweft\[platforms\]"'):
        read_platform("xenium", tmp_path)
