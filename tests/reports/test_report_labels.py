"""Cell types in the report: verdicts, tables, diagrams, maps, and errors."""

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from cellweft._errors import InputError
from cellweft._provenance import SCHEMA_VERSION
from cellweft.data._pair import Pair
from cellweft.evaluate.score_table import write_scores
from cellweft.reports import report
from cellweft.reports.document import Number, Picture
from cellweft.reports.formatting import shown
from cellweft.reports.inputs import given_of
from cellweft.reports.labels import label_verdicts

Make = Callable[..., pd.DataFrame]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The descriptions of the pictures, which are left empty."""
    seen: list[str] = []

    def empty(draw: Any, *, alt: str, caption: Any, form: str = "png") -> Picture:
        seen.append(alt)
        return Picture(data="data:,", alt=alt, caption=tuple(caption), width=300, height=200)

    for name in ("genes", "placement", "accuracy", "labels"):
        monkeypatch.setattr(f"cellweft.reports.{name}.picture", empty)
    return seen


def words_of(path: Path) -> str:
    """Return the text of a page without markup."""
    body = path.read_text(encoding="utf-8").partition("<main>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def imputed_of(pair: Pair, *, names: Any = None) -> ad.AnnData:
    """Make a result with one imputed gene in the cells of a pair."""
    made = ad.AnnData(np.ones((pair.st.n_cells, 1), dtype=np.float32))
    made.obs_names = pair.st.obs_names if names is None else names
    made.var["measured"] = False
    made.obsm["spatial"] = np.asarray(pair.coordinates)
    made.uns["cellweft"] = {"schema_version": SCHEMA_VERSION}
    return made


@pytest.mark.usefixtures("drawn")
def test_the_text_of_the_section(cell_types: Make, tissue_pair: Pair, tmp_path: Path) -> None:
    labels = cell_types(tissue_pair.st.obs_names)
    words = words_of(report(tmp_path / "report.html", labels, progress=False))
    said = (
        "90 cells were assigned their most probable label",
        "In the reference, 4 cells without a label were not used.",
        "Cell types by cell_type : 81 % of the held-out reference cells got the right label.",
        "confidence differs from the share of correct labels by 0.044 : good. "
        "Of the cells of the tissue, 10 % are unknown: good.",
        "label cells share share in the reference mean confidence unknown A 30 33 % 31 % 0.718 10 %",
        "No cell of the tissue was assigned any of these labels: Absent .",
        "calibration error of cell types, in held-out cells (lower is better) 0.050 0.100",
        "no positions of these cells were given",
        "Do not rely on unknown cells alone to find such types.",
        "cellweft annotate atlas.h5ad tissue.h5ad -o labels --columns cell_type --set steps=23 "
        "--seed 5 --device cpu",
        "2026-03-04T05:06:07+01:00 , from atlas.h5ad and tissue.h5ad , in 8.25 seconds",
        "cell types labels : 90 cells",
    )
    for one in said:
        assert one in words, one


def test_digits_only_occur_in_numbers_and_names(cell_types: Make, tissue_pair: Pair, tmp_path: Path) -> None:
    labels = cell_types(tissue_pair.st.obs_names, ("class", "subclass"))
    page = report(tmp_path / "report.html", labels, tissue_pair, progress=False).read_text(encoding="utf-8")
    section = page.partition('<section id="labels"')[2].partition("</section>")[0]
    assert section.count("<data ") > 50
    assert section.count("<img ") == section.count("<figcaption>") == 4
    bare = re.sub(r'<data [^>]*>[^<]*</data>|<span class="name">[^<]*</span>|<[^>]+>', " ", section)
    assert re.findall(r".{20}\d", bare) == []


@pytest.mark.usefixtures("drawn")
def test_a_recorded_command_is_shown_unchanged(cell_types: Make, tissue_pair: Pair, tmp_path: Path) -> None:
    line = "cellweft annotate a.h5ad b.h5ad -o types.csv --labels kind"
    labels = cell_types(tissue_pair.st.obs_names, command_line=line)
    assert line in words_of(report(tmp_path / "report.html", labels, progress=False))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_file_and_memory_give_the_same_section(
    cell_types: Make, tissue_pair: Pair, tmp_path: Path, drawn: list[str], form: str
) -> None:
    labels = cell_types(tissue_pair.st.obs_names, ("class", "subclass"))
    rows = labels.rename_axis("cell").reset_index()
    rows.attrs = labels.attrs
    path, _ = write_scores(rows, tmp_path / f"types.{form}")
    held = words_of(report(tmp_path / "a.html", labels, progress=False))
    stored = words_of(report(tmp_path / "b.html", path, progress=False))
    assert stored.replace(path.name, "labels") == held
    assert drawn[:2] == [
        f"Reliability diagram of {name}: share of cells with the right label, by confidence"
        for name in ("class", "subclass")
    ]
    assert "Labels of class , the most frequent first" in held
    assert "Labels of subclass , the most frequent first" in held
    assert "--columns class,subclass" in held


@pytest.mark.parametrize("where", ["result", "pair", "both", "spots", "a different order", "a part"])
def test_labels_are_mapped_if_the_cells_have_coordinates(
    cell_types: Make, tissue_pair: Pair, tmp_path: Path, drawn: list[str], where: str
) -> None:
    names = tissue_pair.st.obs_names
    labels = cell_types(names, ("class", "subclass"))
    result, spots = imputed_of(tissue_pair), imputed_of(tissue_pair)
    spots.obsm["cellweft_proportions"] = pd.DataFrame({"A": np.ones(90)}, index=names)
    given: dict[str, list[Any]] = {
        "result": [labels, result],
        "pair": [tissue_pair, labels],
        "both": [tissue_pair, result, labels],
        "spots": [labels, spots],
        "a different order": [result[::-1].copy(), labels],
        "a part": [labels, result[:40].copy()],
    }
    words = words_of(report(tmp_path / "report.html", *given[where], progress=False))
    assert "Map of the tissue by the cells' label of subclass" in drawn
    assert "Map of the tissue by the confidence of the cells' label of subclass" in drawn
    assert not any("by the cells' label of class" in one for one in drawn)
    assert "Unknown cells are grey." in words
    assert ("Shown are the 40 cells that have a position in imputed" in words) == (where == "a part")


def test_the_map_shows_each_cell_by_its_own_label(
    cell_types: Make, tissue_pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[list[str], pd.Series]] = []

    def note(data: ad.AnnData, color: pd.Series, **options: Any) -> Any:
        seen.append((data.obs_names.tolist(), color))
        from matplotlib import pyplot as plt

        return plt.figure().subplots()

    monkeypatch.setattr("cellweft.pl.spatial", note)
    labels = cell_types(tissue_pair.st.obs_names)
    report(tmp_path / "report.html", imputed_of(tissue_pair)[::-1].copy(), labels, progress=False)
    cells, types = next((cells, one) for cells, one in seen if one is not None and one.name == "cell_type")
    expected = labels["label"].astype(object).where(~labels["unknown"])[cells]
    assert types.isna().sum() == 9
    assert types.astype(object).fillna("-").tolist() == expected.fillna("-").tolist()


@pytest.mark.usefixtures("drawn")
def test_coordinates_of_other_cells_give_no_map(cell_types: Make, tissue_pair: Pair, tmp_path: Path) -> None:
    labels = cell_types([f"other{number}" for number in range(90)])
    words = words_of(report(tmp_path / "report.html", labels, imputed_of(tissue_pair), progress=False))
    assert "no positions of these cells were given" in words


def said_of(one: Any) -> str:
    return "".join(
        shown(part) if isinstance(part, Number) else getattr(part, "text", part) for part in one.parts
    )


@pytest.mark.parametrize(
    ("error", "share", "tone", "words"),
    [
        (0.02, 0.1, "good", "0.020: good. Of the cells of the tissue, 10 % are unknown: good."),
        (0.05, 0.15, "good", "0.050: good."),
        (0.07, 0.1, "even", "0.070: moderate; good is at most 0.050."),
        (0.2, 0.1, "poor", "0.200: poor; good is at most 0.050."),
        (0.02, 0.2, "even", "20 % are unknown: moderate; good is at most 15 %. The reference may lack types"),
        (0.02, 1.0, "poor", "100 % are unknown: poor; good is at most 15 %. The reference may lack types"),
    ],
)
def test_the_verdict_is_the_worse_of_calibration_and_unknown_cells(
    cell_types: Make, error: float, share: float, tone: str, words: str
) -> None:
    labels = cell_types([f"c{number}" for number in range(100)])
    labels.attrs["cellweft"]["labels"]["cell_type"]["calibration_error"] = error
    labels["unknown"] = np.arange(100) < round(100 * share)
    (found,) = label_verdicts(given_of([labels]))
    assert found.tone == tone
    assert words in said_of(found)


@pytest.mark.usefixtures("drawn")
def test_many_labels_are_truncated_with_a_note(cell_types: Make, tmp_path: Path) -> None:
    labels = cell_types([f"c{number}" for number in range(100)])
    labels["label"] = [f"t{number % 33}" for number in range(100)]
    words = words_of(report(tmp_path / "report.html", labels, progress=False))
    assert "3 labels with fewer cells are not shown." in words
    assert "labels has labels that are missing from its record: t0 , t1 ," in words


@pytest.mark.usefixtures("drawn")
def test_cautions_about_the_labels(cell_types: Make, tissue_pair: Pair, tmp_path: Path) -> None:
    labels = cell_types(tissue_pair.st.obs_names)
    labels.attrs["cellweft"]["inputs"]["spatial"]["scale"] = "log"
    words = words_of(report(tmp_path / "report.html", labels.iloc[:50], tissue_pair, progress=False))
    assert "the tissue data are not counts, so their depth is unknown" in words
    assert "labels contains 50 of the 90 annotated cells." in words
    assert "a different number of cells than the inputs" in words


@pytest.mark.usefixtures("drawn")
def test_a_record_of_an_earlier_version_is_accepted(cell_types: Make, tmp_path: Path) -> None:
    labels = cell_types(["a", "b", "c"])
    record = labels.attrs["cellweft"]
    labels.attrs["cellweft"] = {name: record[name] for name in ("kind", "labels", "depth", "held_out_cells")}
    del record["labels"]["cell_type"]["reference_cells"]
    words = words_of(report(tmp_path / "report.html", labels, progress=False))
    assert "label cells share mean confidence unknown A 1 33 %" in words
    assert "cellweft annotate" not in words


def spoiled(table: pd.DataFrame, change: Callable[[dict[str, Any]], object]) -> pd.DataFrame:
    made = table.copy(deep=True)
    change(made.attrs["cellweft"]["labels"]["cell_type"])
    return made


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (
            lambda one: one.attrs.clear() or one,
            "its record: expected the record of Imputer.annotate.*in attrs",
        ),
        (lambda one: one.iloc[[0, 0]], "each cell once, got several rows for 'a'"),
        (lambda one: one.drop(columns="unknown"), "got none of 'unknown'"),
        (lambda one: one.drop(columns="label"), "a table of cell types, with the columns 'label'"),
        (lambda one: spoiled(one, lambda told: told.pop("calibration_error")), "'calibration_error'"),
        (lambda one: spoiled(one, lambda told: told.update(share_right="high")), "'share_right'.*a number"),
        (
            lambda one: spoiled(one, lambda told: told["calibration"]["weight"].pop()),
            "a confidence, a share and a weight for each bin, as cellweft writes it, got 1 and 2 of them",
        ),
        (
            lambda one: spoiled(one, lambda told: told["calibration"].update(weight=["a", "b"])),
            r"\['weight'\]: expected a number",
        ),
    ],
)
def test_damaged_labels_are_refused(cell_types: Make, tmp_path: Path, spoil: Any, match: str) -> None:
    given = spoil(cell_types(["a", "b", "c"]))
    with pytest.raises(InputError, match=match):
        report(tmp_path / "report.html", given, progress=False)
    assert not list(tmp_path.iterdir())


def test_files_without_a_record_and_two_tables_are_refused(cell_types: Make, tmp_path: Path) -> None:
    labels = cell_types(["a", "b", "c"])
    with pytest.raises(InputError, match="expected one table of cell types, got two"):
        report(tmp_path / "report.html", labels, labels, progress=False)
    labels.rename_axis("cell").reset_index().to_csv(tmp_path / "types.csv", index=False)
    with pytest.raises(InputError, match=r"types\.csv\), its record.*got no \.json file next to the table"):
        report(tmp_path / "report.html", tmp_path / "types.csv", progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_section_is_legible_in_a_browser(
    browser: Any, cell_types: Make, tissue_pair: Pair, tmp_path: Path, scheme: str
) -> None:
    labels = cell_types(tissue_pair.st.obs_names, ("class", "subclass"))
    path = report(tmp_path / "report.html", labels, tissue_pair, progress=False)
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1100, "height": 800})
    page = context.new_page()
    page.goto(path.as_uri())
    page.click("nav >> text=Cell types")
    assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    assert page.locator("#labels figure").count() == 4
    torn = "[...document.querySelectorAll('.wide')].filter(one => one.scrollWidth > one.clientWidth).length"
    assert page.evaluate(torn) == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size({"width": 380, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()
