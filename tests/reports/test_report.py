"""The report: statements, the origin of its numbers, odd input, and its page in a browser."""

import html
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from cellweft._errors import (
    FormatError,
    GeneError,
    InputError,
    MissingFileError,
    OutputExistsError,
    SettingError,
)
from cellweft._provenance import SCHEMA_VERSION
from cellweft.data._pair import Pair
from cellweft.data.io.write import write_anndata
from cellweft.evaluate.metrics import METRICS
from cellweft.evaluate.score_table import write_scores
from cellweft.place.placement import Placement
from cellweft.reports import report
from cellweft.reports.accuracy import compared, verdict
from cellweft.reports.document import Number, Picture
from cellweft.reports.formatting import shown, written
from cellweft.reports.inputs import given_of
from cellweft.reports.standards import STANDARDS

VERSIONS = {"cellweft": "0.1.0", "numpy": "2.4.6"}


def imputed_of(pair: Pair, *, interval: bool = True) -> ad.AnnData:
    """A made-up result of imputation for a pair; the values are noise."""
    random = np.random.default_rng(0)
    shape = (pair.st.n_cells, pair.sc.n_genes)
    made = ad.AnnData(random.random(shape).astype(np.float32), obs=pair.st.obs.copy())
    made.var_names = pair.sc.genes
    made.obsm["spatial"] = pair.coordinates
    made.var["measured"] = np.isin(np.arange(shape[1]), pair.sc_shared)
    made.var["reliability"] = random.random(shape[1])
    made.var["reliability_lower"] = made.var["reliability"] - 0.1234
    made.var["reliability_upper"] = made.var["reliability"] + 0.1234
    made.var["reliable"] = made.var["reliability"] > 0.4
    made.uns["cellweft"] = {
        "preset": "auto",
        "seed": 3,
        "device": "cpu",
        "settings": {"steps": 17, "lr": 0.002},
        "schema_version": SCHEMA_VERSION,
        "date": "2026-01-02T03:04:05+01:00",
        "duration": {"fit": 12.5, "run": 3.25},
        "command_line": "",
        "inputs": {
            "reference": {"path": "atlas.h5ad", "cells": 80, "genes": 24, "digest": "ab12", "layer": "X"},
            "spatial": {"path": "tissue.h5ad", "cells": 80, "genes": 12, "digest": "cd34", "layer": "X"},
        },
        "scale": "log-normalised: log1p(counts)",
        "versions": VERSIONS,
    }
    if interval:
        made.layers["lower"], made.layers["upper"] = made.X - 0.2, made.X + 0.3
        made.uns["cellweft"]["interval"] = 0.9
    return made


def scores_of(genes: Any, *, gains: dict[str, float] | None = None, seeds: int = 1) -> pd.DataFrame:
    """Make a table of scores of some genes; each method is better than the previous one by its gain."""
    random = np.random.default_rng(1)
    base = random.uniform(0.1, 0.5, len(genes))
    rows = []
    for method, gain in (gains or {"auto": 0.2, "mean": -0.1, "knn": 0.1}).items():
        for seed in range(seeds):
            values = {name: base + gain + random.normal(0, 0.01, len(genes)) for name in METRICS}
            values["mse"] = 1 - values["pearson"]
            for metric, value in values.items():
                part = pd.DataFrame({"item": genes, "value": value})
                rows.append(part.assign(method=method, seed=seed, metric=metric, level="gene", fold=0))
                summary = pd.DataFrame({"item": ["median over genes"], "value": [np.median(value)]})
                rows.append(summary.assign(method=method, seed=seed, metric=metric, level="summary", fold=-1))
    table = pd.concat(rows, ignore_index=True)
    return table[["method", "seed", "fold", "level", "item", "metric", "value"]]


def places_of(cells: Any) -> pd.DataFrame:
    random = np.random.default_rng(2)
    rows = []
    for method, error in (("auto:steps=8", 10.0), ("cosine", 20.0)):
        errors = error * random.uniform(0.5, 1.5, len(cells))
        part = pd.DataFrame({"item": cells, "value": errors})
        rows.append(part.assign(level="cell", metric="location_error", method=method))
        values = {
            "location_error_mean": errors.mean(),
            "location_error_median": np.median(errors),
            "hits@25": 3.5,
        }
        total = pd.DataFrame({"item": "all cells", "metric": values.keys(), "value": values.values()})
        rows.append(total.assign(level="summary", method=method))
    table = pd.concat(rows, ignore_index=True).assign(seed=0, fold=-1)
    return table[["method", "seed", "fold", "level", "item", "metric", "value"]]


@pytest.fixture(scope="module")
def imputed(tissue_pair: Pair) -> ad.AnnData:
    return imputed_of(tissue_pair)


@pytest.fixture(scope="module")
def scores(tissue_pair: Pair) -> pd.DataFrame:
    table = scores_of(tissue_pair.shared_genes)
    table.attrs["cellweft"] = {"versions": VERSIONS, "seeds": [0], "pair": tissue_pair.findings}
    return table


@pytest.fixture(scope="module")
def spots(placement: Placement) -> ad.AnnData:
    return placement.to_anndata(of="spots")


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: Any,
    tissue_pair: Pair,
    imputed: ad.AnnData,
    placement: Placement,
    spots: ad.AnnData,
    scores: pd.DataFrame,
) -> tuple[Path, list[Any]]:
    """A complete report, and the objects that it was made from."""
    placed = placement.to_anndata(neighbors=0)
    given = [imputed, placed, spots, scores, places_of(placed.obs_names), tissue_pair]
    path = tmp_path_factory.mktemp("report") / "report.html"
    return report(path, *given, genes=["Gene01"], true_places="obsm:spatial_true"), given


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave pictures empty, for tests that only read the text."""

    def empty(draw: Any, *, alt: str, caption: Any, form: str = "png") -> Picture:
        return Picture(data="data:,", alt=alt, caption=tuple(caption), width=300, height=200)

    for name in ("genes", "placement", "accuracy"):
        monkeypatch.setattr(f"cellweft.reports.{name}.picture", empty)


class Reader(HTMLParser):
    """The content of a page: numbers with their values, names, and all other text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.numbers: list[tuple[str, float]] = []
        self.names: list[str] = []
        self.plain: list[str] = []
        self.loads: list[str] = []
        self.images: list[dict[str, Any]] = []
        self.tags: list[str] = []
        self._open: list[tuple[str, dict[str, Any]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.loads += [given[one] for one in ("src", "srcset", "data", "action") if one in given]
        self.loads += [given["href"]] if tag == "link" else []
        if tag == "img":
            self.images.append(given)
        if tag not in ("img", "meta", "link", "br"):
            self._open.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self._open]
        if not data.strip() or "style" in tags or "title" in tags:
            return
        tag, given = self._open[-1]
        if tag == "data":
            self.numbers.append((data, float(given["value"])))
        elif given.get("class") == "name" or tag in ("code", "cite", "a"):
            self.names.append(data)
        else:
            self.plain.append(data)


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def values_in(thing: Any) -> Iterator[float]:
    """Yield every number of a table or record, and the sizes of all tables and records."""
    if isinstance(thing, dict):
        yield len(thing)
        yield from chain.from_iterable(map(values_in, thing.values()))
    elif isinstance(thing, list | tuple):
        yield len(thing)
        yield from chain.from_iterable(map(values_in, thing))
    elif isinstance(thing, pd.DataFrame):
        yield len(thing)
        for _, column in thing.items():
            if pd.api.types.is_bool_dtype(column):
                yield int(column.sum())
            elif pd.api.types.is_numeric_dtype(column):
                yield from column
            else:
                yield from column.value_counts()
                yield column.nunique()
    elif isinstance(thing, ad.AnnData):
        yield from (
            *thing.shape,
            *values_in(thing.obs),
            *values_in(thing.var),
            *values_in(thing.uns["cellweft"]),
        )
        if "cellweft_proportions" in thing.obsm:
            table = thing.obsm["cellweft_proportions"]
            yield from (*values_in(table), *table.idxmax(axis=1).value_counts(), 0)
    elif isinstance(thing, int | float):
        yield thing


def compared_values(table: pd.DataFrame) -> Iterator[float]:
    """Yield medians over items, numbers of items with a better score, and means of summaries over seeds."""
    mean = table.groupby(["method", "level", "item", "metric"])["value"].mean()
    yield from mean
    items = table[table["level"] != "summary"]
    wide = items.pivot_table(index=["metric", "item"], columns="method", values="value")
    for _, one in wide.groupby("metric"):
        yield from one.median()
        yield len(one)
        for left in one:
            yield from ((one[left] > one[right]).sum() for right in one)


def test_every_number_is_in_the_tables(whole: tuple[Path, list[Any]]) -> None:
    path, given = whole
    *results, pair = given
    known = list(chain.from_iterable(map(values_in, [*results, pair.findings])))
    known += chain.from_iterable(compared_values(one) for one in results if isinstance(one, pd.DataFrame))
    imputed = given[0].var
    known += [0, int(len(imputed) - 24), int(len(imputed) == 0)]
    inside = (
        given[3]
        .query("method == 'auto' and level == 'gene' and metric == 'pearson'")
        .set_index("item")["value"]
    )
    bounds = imputed.loc[inside.index]
    known.append(int(inside.between(bounds["reliability_lower"], bounds["reliability_upper"]).sum()))
    off_panel = imputed[~imputed["measured"]]
    known += [len(off_panel), int(off_panel["reliable"].sum())]
    records = [one.uns["cellweft"] for one in given if hasattr(one, "uns")]
    known += [sum(map(float, record["duration"].values())) for record in records if "duration" in record]
    known += [value for one in STANDARDS.values() for value in (one.good, one.poor)]
    error = given[4].query("metric == 'location_error_median' and method == 'auto:steps=8'")["value"].iloc[0]
    known += [25, 3.5 / 25, error / max(pair.findings["coordinates"]["extent"][:2])]
    found = read(path)
    shown = {written(float(value), form) for value in known for form in ("count", "score", "value", "share")}
    exact = np.unique(np.asarray(known, dtype=float))
    assert len(found.numbers) > 150
    for text, value in found.numbers:
        assert text in shown, f"{text} is in no table"
        nearest = exact[np.abs(exact - value).argmin()]
        assert value == pytest.approx(nearest, rel=1e-9, abs=1e-12), f"{value} is in no table"


def test_digits_only_occur_in_numbers_and_names(whole: tuple[Path, list[Any]]) -> None:
    assert [one for one in read(whole[0]).plain if re.search(r"\d", one)] == []


def test_its_sections_are_in_the_contents(whole: tuple[Path, list[Any]]) -> None:
    text = whole[0].read_text(encoding="utf-8")
    keys = re.findall(r'<section id="(\w+)"', text)
    assert keys == [
        *("summary", "inputs", "run", "quality", "genes", "gallery"),
        *("placement", "composition", "cautions", "reproduce"),
    ]
    assert re.findall(r'<li><a href="#(\w+)"', text) == keys
    assert "cellweft impute atlas.h5ad tissue.h5ad -o imputed --set steps=17 --interval 0.9 --seed 3" in text
    assert "10.1038/s42003-024-06964-2" in text
    assert "10.1038/s42003-023-05640-1" in text
    assert "is better than the best simple baseline" in text


def test_nothing_is_loaded_from_elsewhere(whole: tuple[Path, list[Any]]) -> None:
    page = read(whole[0])
    assert page.loads
    assert all(one.startswith("data:") for one in page.loads)
    assert "url(" not in whole[0].read_text(encoding="utf-8").partition("</style>")[0]
    assert "@import" not in whole[0].read_text(encoding="utf-8")
    assert not {"script", "iframe", "object", "form"} & set(page.tags)


def test_every_figure_says_what_it_shows(whole: tuple[Path, list[Any]]) -> None:
    page = read(whole[0])
    assert len(page.images) > 8
    assert all(len(one["alt"]) > 15 and int(one["width"]) > 0 for one in page.images)
    assert page.tags.count("figcaption") == page.tags.count("figure") == len(page.images)
    assert page.tags.count("caption") == page.tags.count("table")


@pytest.mark.slow
def test_the_same_input_gives_identical_files(
    tmp_path: Path, imputed: ad.AnnData, scores: pd.DataFrame, tissue_pair: Pair
) -> None:
    imputed = imputed[:, :1].copy()
    before = imputed.copy()
    one, two = (report(tmp_path / f"{name}.html", imputed, scores, tissue_pair) for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    pd.testing.assert_frame_equal(before.var, imputed.var)
    assert set(before.uns) == set(imputed.uns)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_files_and_memory_give_the_same_report(
    tmp_path: Path, imputed: ad.AnnData, scores: pd.DataFrame, placement: Placement
) -> None:
    imputed = imputed[:, :3].copy()
    write_anndata(imputed, tmp_path / "imputed.zarr")
    imputed.write_h5ad(tmp_path / "imputed.h5ad")
    placement.to_anndata().write_h5ad(tmp_path / "placed.h5ad")
    write_scores(scores, tmp_path / "scores.csv")
    held = read(report(tmp_path / "a.html", imputed, placement, scores))
    for name, source in (("b", "imputed.zarr"), ("c", "imputed.h5ad")):
        paths = [tmp_path / one for one in (source, "placed.h5ad", "scores.csv")]
        stored = read(report(tmp_path / f"{name}.html", *paths))
        assert [text for text, _ in stored.numbers] == [text for text, _ in held.numbers]
    backed = read(report(tmp_path / "d.html", ad.read_h5ad(tmp_path / "imputed.h5ad", backed="r"), scores))
    assert backed.numbers


@pytest.mark.usefixtures("undrawn")
def test_names_are_escaped(tmp_path: Path, imputed: ad.AnnData) -> None:
    evil = "<script>alert(1)</script>"
    one = imputed[:, :2].copy()
    one.var_names = [evil, *one.var_names[1:]]
    one.var.loc[evil, "reliability"] = 0.99
    table = scores_of([evil, "b"], gains={"auto": 0.1, '"><img src=x>': 0.0})
    path = report(tmp_path / "report.html", one, table, title=evil)
    text = path.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img src=x" not in text
    assert html.escape(evil) in text


@pytest.mark.usefixtures("undrawn")
def test_one_gene_without_further_information(tmp_path: Path, imputed: ad.AnnData) -> None:
    one = imputed[:, :1].copy()
    del one.uns["cellweft"]
    one.var = one.var[["measured"]].assign(reliability=np.nan)
    text = report(tmp_path / "report.html", one).read_text(encoding="utf-8")
    assert "was not estimated" in text
    assert "has no record" in text
    assert "no scores were given" in text


@pytest.mark.usefixtures("undrawn")
def test_a_result_without_coordinates_has_no_gallery(tmp_path: Path, imputed: ad.AnnData) -> None:
    one = imputed.copy()
    del one.obsm["spatial"]
    assert "Genes in the tissue" not in report(tmp_path / "a.html", one).read_text(encoding="utf-8")


@pytest.mark.usefixtures("undrawn")
def test_a_truth_is_used_to_test_the_intervals(tmp_path: Path, tissue: Any, imputed: ad.AnnData) -> None:
    from cellweft.data._pair import pair

    path = report(tmp_path / "report.html", imputed[:, :2].copy(), truth=pair(tissue.sc, tissue.truth))
    assert "Share of the true values" in path.read_text(encoding="utf-8")


def test_a_result_of_counts_is_shown_with_measured_counts(
    tmp_path: Path, tissue: Any, tissue_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cellweft.data._pair import pair

    names, counts = tissue_pair.sc.genes, tissue.truth.to_df()
    made = ad.AnnData(counts[names].to_numpy(dtype=np.float32), obs=tissue_pair.st.obs.copy())
    made.var_names, made.obsm["spatial"] = names, np.asarray(tissue_pair.coordinates)
    made.var["measured"] = np.isin(np.arange(len(names)), tissue_pair.sc_shared)
    made.layers["lower"], made.layers["upper"] = made.X - 0.5, made.X + 0.5
    made.uns["cellweft"] = {"schema_version": SCHEMA_VERSION, "interval": 0.9, "scale": "counts: means"}
    seen: dict[str, np.ndarray] = {}

    def note(data: ad.AnnData, gene: str, *, measured: Any = None) -> Any:
        from matplotlib import pyplot as plt

        seen[gene] = measured
        return (plt.figure().subplots(),)

    monkeypatch.setattr("cellweft.pl.gene", note)
    truth, panel = pair(tissue.sc, tissue.truth), tissue_pair.shared_genes[0]
    off_panel = next(name for name, is_there in made.var["measured"].items() if not is_there)
    path = report(
        tmp_path / "report.html", made, tissue_pair, truth=truth, genes=[panel, off_panel], progress=False
    )
    np.testing.assert_array_equal(seen[panel], tissue.st.to_df()[panel])
    np.testing.assert_array_equal(seen[off_panel], counts[off_panel])
    text = path.read_text(encoding="utf-8")
    assert "one colour scale, that of counts" in text
    assert "Its intervals contain <data" in text
    assert ">100 %</data> of the values, while" in text


@pytest.mark.parametrize(
    ("gains", "outcome", "tone"),
    [
        ({"auto": 0.2, "knn": 0.1}, "better", "good"),
        ({"auto": 0.1, "knn": 0.2}, "worse", "poor"),
        ({"auto": 0.1, "knn": 0.1}, "alike", "even"),
    ],
)
def test_the_verdict_matches_the_scores(gains: dict[str, float], outcome: str, tone: str) -> None:
    table = scores_of([f"g{number}" for number in range(30)], gains=gains)
    (scores,) = given_of([table]).scores
    found = compared(scores, "auto", metric="pearson")
    assert found is not None
    assert found.outcome == outcome
    wide = table.query("level == 'gene' and metric == 'pearson'").pivot_table(
        index="item", columns="method", values="value"
    )
    assert found.wins.value == (wide["auto"] > wide["knn"]).sum()
    assert found.own_score.value == wide["auto"].median()
    assert verdict(scores, None).tone == tone


def test_without_a_baseline_the_verdict_is_only_a_note() -> None:
    (scores,) = given_of([scores_of(["a", "b"], gains={"auto": 0.3})]).scores
    assert verdict(scores, None).tone == "note"
    (scores,) = given_of([scores_of(["a", "b"], gains={"mine": 0.3})]).scores
    assert "not score any of cellweft's own methods" in str(verdict(scores, None).parts)


def rows_of(level: str, item: str, values: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """Return rows of a table of scores with the values of auto and of a baseline for each metric."""
    rows = [
        (method, level, item, metric, value)
        for metric, both in values.items()
        for method, value in zip(("auto", "knn"), both, strict=True)
    ]
    table = pd.DataFrame(rows, columns=["method", "level", "item", "metric", "value"])
    return table.assign(seed=0, fold=-1)


def said_of(one: Any) -> str:
    """Return the words of a text, with numbers as displayed."""
    return "".join(
        shown(part) if isinstance(part, Number) else getattr(part, "text", part) for part in one.parts
    )


@pytest.mark.parametrize(
    ("hits", "error", "tone"),
    [
        (1.75, 5.0, "poor"),
        (10.0, 5.0, "good"),
        (10.0, 30.0, "poor"),
        (5.0, 5.0, "even"),
        (10.0, 15.0, "even"),
    ],
)
def test_a_placement_better_than_a_poor_baseline_is_judged_by_its_own_error(
    hits: float, error: float, tone: str
) -> None:
    values = {"location_error_median": (error, 60.0), "hits@25": (hits, 1.0)}
    cells = [rows_of("cell", f"c{n}", {"location_error": (error, 60.0)}) for n in range(20)]
    (scores,) = given_of([pd.concat([*cells, rows_of("summary", "all cells", values)])]).scores
    found = verdict(scores, None, width=100.0)
    assert found.tone == tone
    words = said_of(found)
    assert "is better than the best simple baseline" in words
    assert f"Its median error is {written(error / 100, 'share')} of the tissue's width" in words
    assert f"{written(hits / 25, 'share')} are also nearest at the predicted positions" in words
    assert ("poor; good is at least 30 %" in words) == (hits == 1.75)


@pytest.mark.parametrize(("share", "tone"), [(0.9, "good"), (0.83, "even"), (0.7, "poor"), (0.99, "even")])
def test_intervals_with_wrong_coverage_are_reported(share: float, tone: str) -> None:
    genes = [rows_of("gene", f"g{n}", {"pearson": (0.6, 0.1)}) for n in range(20)]
    summary = rows_of("summary", "all values", {"coverage@0.9": (share, share)})
    (scores,) = given_of([pd.concat([*genes, summary])]).scores
    found = verdict(scores, None)
    assert found.tone == tone
    assert f"Its intervals contain {share:.0%} of the values, while 90 % are expected".replace(
        "%", " %", 1
    ) in said_of(found)
    assert ("too narrow by" in said_of(found)) == (share < 0.87)
    assert ("too wide by" in said_of(found)) == (share > 0.93)


@pytest.mark.usefixtures("undrawn")
def test_measured_and_imputed_genes_are_separate_and_the_page_can_be_reproduced(
    tmp_path: Path, imputed: ad.AnnData, scores: pd.DataFrame
) -> None:
    text = report(tmp_path / "report.html", imputed, scores).read_text(encoding="utf-8")
    imputed_at = text.index("Imputed genes, which the panel did not measure")
    panel_at = text.index("Panel genes, which were also measured")
    for gene, measured in imputed.var["measured"].items():
        place = text.index(f'<th scope="row"><span class="name">{gene}</span>', imputed_at)
        assert (place > panel_at) == measured
    again = text[text.index('id="reproduce"') :]
    for said in ("2026-01-02T03:04:05+01:00", "atlas.h5ad", "15.8</data> seconds", "cellweft evaluate"):
        assert said in again
    assert "Thresholds of the verdicts" in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("share", [0.1, 0.3, np.nan])
def test_spill_over_is_reported_if_the_result_has_it(
    tmp_path: Path, imputed: ad.AnnData, share: float
) -> None:
    made = imputed.copy()
    made.obs["cellweft_spillover"] = np.where(np.arange(made.n_obs) == 3, np.nan, share)
    page = report(tmp_path / "report.html", made)
    said, words = read(page), page.read_text(encoding="utf-8")
    assert ("(spill-over)" in words) == (share == share)
    assert ("before you interpret markers in unexpected cells" in words) == (share == 0.3)
    assert any(value == pytest.approx(share) for _, value in said.numbers) == (share == share)
    made.obs["cellweft_spillover"] = "much"
    with pytest.raises(InputError, match=r"cellweft_spillover.*expected numbers"):
        report(tmp_path / "other.html", made)


@pytest.mark.usefixtures("undrawn")
def test_blended_counts_are_reported_and_can_be_reproduced(tmp_path: Path, imputed: ad.AnnData) -> None:
    made = imputed.copy()
    made.uns["cellweft"] = dict(made.uns["cellweft"]) | {
        "scale": "counts: the mean count that the panel would have shown",
        "measured": "blend",
        "sparse": 0.05,
    }
    words = report(tmp_path / "report.html", made).read_text(encoding="utf-8")
    assert "--scale counts --measured blend" in words
    assert "--sparse 0.05" in words
    assert "from measurement and prediction together" in words
    assert "use the measurement itself" not in words


@pytest.mark.usefixtures("undrawn")
def test_several_seeds_are_averaged(tmp_path: Path) -> None:
    table = scores_of(["a", "b", "c"], seeds=3)
    text = read(report(tmp_path / "report.html", table))
    mean = table.query("level == 'summary' and method == 'auto' and metric == 'pearson'")["value"].mean()
    assert any(value == pytest.approx(mean) for _, value in text.numbers)


@pytest.mark.usefixtures("undrawn")
def test_a_different_number_of_cells_than_in_the_inputs_is_reported(
    tmp_path: Path, imputed: ad.AnnData, tissue_pair: Pair
) -> None:
    path = report(tmp_path / "report.html", imputed[:50, :1].copy(), tissue_pair)
    assert "a different number of cells" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ([], InputError, "at least one result or table of scores, got none"),
        ([3], FormatError, "results: expected imputed genes.*got int"),
        (["missing.zarr"], MissingFileError, "nothing at this path"),
        (["missing.csv"], MissingFileError, "a table of scores or of cell types, got nothing"),
        ([pd.DataFrame({"method": ["a"]})], InputError, "the columns 'method'"),
        ([ad.AnnData(np.ones((3, 2)))], FormatError, "a result of cellweft: imputed genes"),
    ],
)
def test_wrong_input_is_refused(tmp_path: Path, given: list[Any], error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        report(tmp_path / "report.html", *given)
    assert not list(tmp_path.iterdir())


def test_wrong_arguments_are_refused(
    tmp_path: Path, imputed: ad.AnnData, scores: pd.DataFrame, tissue_pair: Pair
) -> None:
    with pytest.raises(InputError, match="expected one table of imputed genes, got two"):
        report(tmp_path / "report.html", imputed, imputed)
    with pytest.raises(InputError, match="got the inputs alone"):
        report(tmp_path / "report.html", tissue_pair)
    with pytest.raises(GeneError, match=r"genes that were imputed, got 'Gnee01'.*Gene01"):
        report(tmp_path / "report.html", imputed, genes=["Gnee01"])
    with pytest.raises(SettingError, match=r"a name ending in \.html"):
        report(tmp_path / "report.txt", scores)
    with pytest.raises(InputError, match="numbers in the column 'value'"):
        report(tmp_path / "report.html", scores.assign(value="high"))
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(OutputExistsError, match="an existing output"):
        report(tmp_path / "report.html", scores)
    assert (tmp_path / "report.html").read_text() == "mine"


@pytest.mark.slow
def test_a_report_of_many_cells_is_a_small_file(tmp_path: Path) -> None:
    n, random = 200_000, np.random.default_rng(0)
    many = ad.AnnData(random.random((n, 6), dtype=np.float32))
    many.obsm["spatial"] = random.random((n, 2)) * 1e4
    many.var["measured"] = [True, True, False, False, False, False]
    many.var["reliability"] = np.linspace(0.1, 0.9, 6)
    path = report(tmp_path / "report.html", many)
    assert path.stat().st_size < 5e6


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_in_a_browser(
    browser: Any, whole: tuple[Path, list[Any]], tmp_path: Path, scheme: str
) -> None:
    said: list[str] = []
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1100, "height": 800})
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(whole[0].as_uri())
    page.click("text=Caveats")
    assert said == []
    assert [one for one in asked if not one.startswith(("data:", whole[0].as_uri()))] == []
    assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ink = page.evaluate("getComputedStyle(document.body).color.match(/\\d+/g).map(Number)[0]")
    assert (ink > 128) is (scheme == "dark")
    page.set_viewport_size({"width": 380, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.emulate_media(media="print")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    pdf = tmp_path / "report.pdf"
    page.pdf(path=str(pdf), format="A4")
    assert 0 < len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())) <= 10
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(
    browser: Any, whole: tuple[Path, list[Any]], serious_faults: Any, scheme: str
) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(whole[0].as_uri())
    assert serious_faults(page) == []
    context.close()


def test_it_is_small_and_complete(whole: tuple[Path, list[Any]]) -> None:
    assert whole[0].stat().st_size < 5e6
    assert not list(whole[0].parent.glob("*partial"))
