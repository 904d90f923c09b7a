"""Every command accepts the folder of a run as its path."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from typer.testing import CliRunner

import cellweft
from cellweft.cli import app
from cellweft.viewer import view

IMPUTE = ["--set", "steps=3", "--set", "level_steps=3", "--no-reliability"]
QUICK = {"steps": 4, "hidden": 8, "middle": 8, "latent": 4, "models": 1}
PLACE = [part for name, value in QUICK.items() for part in ("--set", f"{name}={value}")]


@pytest.fixture
def call(tmp_path: Path, reference: anndata.AnnData, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Function that runs cellweft in a folder that contains the reference, and returns what it printed."""
    reference.write_h5ad(tmp_path / "atlas.h5ad")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any) -> Any:
        done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return run


slowly = pytest.mark.slow


@pytest.mark.parametrize(
    "instrument",
    [
        "xenium",
        *(
            pytest.param(one, marks=slowly)
            for one in (
                "cosmx",
                "merscope",
                "spatialdata",
                "visium",
                "visium_hd",
                "xenium_archives",
                "slide_seq",
                "stereo_seq",
            )
        ),
    ],
)
def test_check_impute_place_report_and_view(instrument: str, make_run: Any, truth: Any, call: Any) -> None:
    known, run = truth(instrument), make_run(instrument)
    checked = call("check", "atlas.h5ad", run)
    assert checked["findings"]["coordinates"]["unit"] == known.unit
    call("impute", "atlas.h5ad", run, "-o", "imputed.zarr", *IMPUTE)
    call("place", "atlas.h5ad", run, "-o", "placed.h5ad", *PLACE)
    imputed = anndata.read_zarr("imputed.zarr")
    assert imputed.obs_names.tolist() == known.names
    np.testing.assert_allclose(imputed.obsm["spatial"], known.places)
    assert imputed.uns["cellweft"]["inputs"]["spatial"]["unit"] == known.unit
    call("report", "imputed.zarr", "placed.h5ad", "-o", "report.html", "--check-inputs", "atlas.h5ad", run)
    page = Path("report.html").read_text(encoding="utf-8")
    shown = {"um": "µm"}.get(known.unit, known.unit)
    assert f"{' ' * bool(shown)}{shown}, the median distance to the nearest neighbour" in page
    with view(
        "imputed.zarr", "placed.h5ad", tissue=run, open_browser=False, block=False, token=False
    ) as viewer:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        told = json.loads(opener.open(f"{viewer.url}api/session", timeout=20).read())["datasets"]
        assert [one["unit"] for one in told] == [known.unit or None] * 2
        asked = f"{viewer.url}api/datasets/0/values?gene=Gene0&layer=measured"
        measured = np.frombuffer(opener.open(asked, timeout=20).read(), dtype="<f4")
    assert len(measured) == len(known.names)
    assert np.isfinite(measured).all()


def test_size_factors_from_a_column_of_the_instrument(make_run: Any, call: Any) -> None:
    found = call("check", "atlas.h5ad", make_run("xenium"), "--st-size-factor", "cell_area")
    assert found["findings"]["spatial"]["size_factor"] == "cell_area"
    assert found["findings"]["spatial"]["median_size"] == 40 + 23 / 2


def test_plots_have_the_scale_of_the_instrument(make_run: Any, reference: Any) -> None:
    run = make_run("xenium")
    ax = cellweft.pl.spatial(run, "Gene0")
    assert [text.get_text() for text in ax.texts] == ["10 µm"]
    assert not cellweft.pl.spatial(run, "Gene0", unit="").texts
    assert not cellweft.pl.spatial(run, "Gene0", coordinates="obs:x_centroid,y_centroid").texts
    placed = cellweft.Placer(settings=QUICK).fit(cellweft.pair(reference, run)).place()
    (ax,) = cellweft.pl.placed(placed)
    assert "µm" in ax.texts[0].get_text()
    assert "µm" in cellweft.pl.composition(placed)[0].texts[0].get_text()
