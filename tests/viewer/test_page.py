"""The page of `cellweft view` in a browser: actions with mouse and keyboard, and what is displayed."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from cellweft._provenance import SCHEMA_VERSION
from cellweft.viewer import Viewer, view

SIDE, N_GENES, N_PANEL = 30, 40, 10
HIDDEN = 20  # a gene of the tissue that was hidden from the imputation
N_CELLS = SIDE * SIDE
SIZE = {"width": 1000, "height": 640}
SETTLED = "() => window.cellweft && window.cellweft.state().settled"


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: Any) -> Iterator[Viewer]:
    """A viewer with 900 imputed cells with patterned genes, their tissue, and 60 placed cells."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("page")
    places = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2) * 10.0
    places += random.uniform(-3, 3, places.shape)
    waves = random.uniform(0.005, 0.03, (2, N_GENES))
    values = (1.5 + 1.5 * np.sin(places @ waves + np.arange(N_GENES))).astype(np.float32)
    names = pd.Index([f"Gene{number:02d}" for number in range(N_GENES)])
    result = AnnData(
        values,
        obs=pd.DataFrame(
            {
                "cell_type": pd.Categorical.from_codes(
                    (places[:, 0] // 100).astype(int), ["left", "middle", "right"]
                )
            },
            index=[f"cell{number}" for number in range(N_CELLS)],
        ),
        var=pd.DataFrame(
            {"measured": np.arange(N_GENES) < N_PANEL, "reliability": np.linspace(0.9, -0.1, N_GENES)},
            index=names,
        ),
        obsm={"spatial": places},
        uns={"cellweft": {"schema_version": SCHEMA_VERSION, "interval": 0.9}},
        layers={"lower": values * 0.8, "upper": values * 1.3 + 0.2},
    )
    result.obs["depth"] = places[:, 1]
    result.write_h5ad(folder / "imputed.h5ad")
    in_tissue = [*range(N_PANEL), HIDDEN]
    counts = random.poisson(np.expm1(values[:, in_tissue])).astype(np.float32)
    AnnData(counts, obs=result.obs[[]], var=pd.DataFrame(index=names[in_tissue])).write_h5ad(
        folder / "tissue.h5ad"
    )
    placed = AnnData(
        obs=pd.DataFrame(
            {
                "cell_type": ["A", "B"] * 30,
                "section": ["s1"] * 20 + ["s2"] * 40,
                "cellweft_confidence": np.linspace(0, 1, 60),
            },
            index=[f"c{n}" for n in range(60)],
        ),
        obsm={"cellweft_spatial": random.uniform(100, 200, (60, 2))},
    )
    placed.write_h5ad(folder / "placed.h5ad")
    results = [folder / "imputed.h5ad", folder / "placed.h5ad"]
    with view(*results, tissue=folder / "tissue.h5ad", open_browser=False, block=False) as served:
        yield served


class Seen:
    """A page, with its requests and error messages."""

    def __init__(self, page: Any, viewer: Viewer) -> None:
        self.page, self.viewer = page, viewer
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on(
            "console",
            lambda told: self.complaints.append(told.text) if told.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, address: str = "") -> "Seen":
        self.page.goto(self.viewer.url + address)
        return self.settle()

    def settle(self) -> "Seen":
        self.page.wait_for_function(SETTLED)
        return self

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.page.evaluate("window.cellweft.state()")
        return state

    def pixels(self, layer: str) -> np.ndarray:
        """Return the image of a panel, (height, width, 3)."""
        image = pytest.importorskip("PIL.Image")
        shot = self.page.locator(f".panel[data-layer={layer}] canvas").screenshot()
        return np.asarray(image.open(io.BytesIO(shot)).convert("RGB")).astype(int)

    def choose(self, gene: str) -> "Seen":
        self.page.keyboard.press("/")
        self.page.keyboard.type(gene)
        self.page.keyboard.press("Enter")
        self.page.wait_for_function("gene => window.cellweft.state().gene === gene", arg=gene)
        return self.settle()

    def at(self, x: float, y: float, layer: str = "imputed") -> tuple[float, float]:
        """Return the position on the page of a point given as fractions of a panel's width and height."""
        box = self.page.locator(f".panel[data-layer={layer}] canvas").bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]


@pytest.fixture
def seen(browser: Any, viewer: Viewer) -> Iterator[Callable[..., Seen]]:
    """Function that opens a page; afterwards it must have contacted no other server and reported no error."""
    pages: list[Seen] = []

    def open_page(address: str = "", **options: Any) -> Seen:
        context = browser.new_context(**{"viewport": SIZE, "color_scheme": "light"} | options)
        pages.append(Seen(context.new_page(), viewer))
        return pages[-1].open(address)

    yield open_page
    for one in pages:
        assert {urlsplit(url).hostname for url in one.requests if not url.startswith("blob:")} == {
            "127.0.0.1"
        }
        assert one.complaints == []
        one.page.context.close()


def changed(before: np.ndarray, after: np.ndarray) -> float:
    """Return the fraction of pixels that differ."""
    return float((np.abs(before - after).max(axis=-1) > 24).mean())


@pytest.mark.slow
def test_first_picture_shows_a_gene_in_all_panels(seen):
    one = seen()
    assert one.state["panels"] == ["measured", "imputed", "uncertainty"]
    assert one.state["gene"] == "Gene00"  # the most reliable measured gene
    for layer in one.state["panels"]:
        assert len(np.unique(one.pixels(layer).reshape(-1, 3), axis=0)) > 20
    assert one.page.locator("#legend .ramp").count() == 2
    assert "log-normalised" in one.page.locator("#legend").inner_text()


@pytest.mark.slow
def test_values_of_a_result_of_counts_are_called_counts(
    browser: Any, tmp_path: Path, cell_types: Any
) -> None:
    random = np.random.default_rng(0)
    values = random.poisson(2.0, (40, 3)).astype(np.float32)
    result = AnnData(values, var=pd.DataFrame({"measured": [True, False, False]}, index=list("abc")))
    result.obs_names = [f"cell{number}" for number in range(40)]
    result.obsm["spatial"] = random.uniform(0, 100, (40, 2))
    result.layers["lower"], result.layers["upper"] = values / 2, values + 1
    result.uns["cellweft"] = {"schema_version": SCHEMA_VERSION, "interval": 0.9, "scale": "counts: means"}
    tissue = AnnData(values[:, :1], obs=result.obs[[]], var=result.var.iloc[:1, :0])
    labels = cell_types(result.obs_names)
    with view(result, tissue=tissue, labels=labels, open_browser=False, block=False) as served:
        page = browser.new_page()
        one = Seen(page, served).open()
        legend = page.locator("#legend").inner_text()
        assert legend.count("counts") == 2  # expression and the width of its interval
        assert "log-normalised" not in page.content()
        for layer, said in (
            ("measured", "Measured by the instrument (counts)"),
            ("imputed", "Predicted by cellweft (counts)"),
        ):
            assert said in page.locator(f"[data-toggles={layer}]").get_attribute("title")
        for name in ("label", "confidence", "unknown"):
            page.select_option("#color", name)
            one.settle()
            assert name in page.locator("#legend").inner_text().lower()
        assert one.complaints == []
        page.close()


@pytest.mark.slow
def test_searched_gene_changes_the_colours(seen):
    one = seen()
    before = one.pixels("imputed")
    one.choose("Gene23")
    assert changed(before, one.pixels("imputed")) > 0.1
    assert "Gene23 was not measured" in one.page.locator(".panel[data-layer=measured]").inner_text()
    assert "imputed only, reliability 0.31" in one.page.locator("#status").inner_text()


@pytest.mark.slow
def test_a_hidden_gene_is_shown_with_its_measurement(seen):
    one = seen()
    one.choose(f"Gene{HIDDEN}")
    assert len(np.unique(one.pixels("measured").reshape(-1, 3), axis=0)) > 20
    assert "not measured" not in one.page.locator(".panel[data-layer=measured]").inner_text()
    assert "measured, but hidden from the imputation" in one.page.locator("#status").inner_text()


@pytest.mark.slow
def test_search_offers_genes_as_a_combobox(seen):
    one = seen()
    one.page.keyboard.press("/")
    one.page.keyboard.type("gene1")
    search, options = one.page.locator("#search"), one.page.locator("#options [role=option]")
    assert options.count() == 10
    assert search.get_attribute("aria-expanded") == "true"
    one.page.keyboard.press("ArrowDown")
    active = one.page.locator("#" + search.get_attribute("aria-activedescendant"))
    assert active.get_attribute("aria-selected") == "true"
    assert active.get_attribute("aria-label") == "Gene11, imputed only, reliability 0.618"
    one.page.keyboard.press("Enter")
    one.settle()
    assert one.state["gene"] == "Gene11"
    assert search.get_attribute("aria-expanded") == "false"


@pytest.mark.slow
def test_unknown_gene_is_reported_in_plain_words(seen):
    one = seen()
    one.page.keyboard.press("/")
    one.page.keyboard.type("Gene7x")
    one.page.keyboard.press("Enter")
    notice = one.page.locator("#notice")
    notice.wait_for()
    assert "Expected" in notice.inner_text()
    assert "Gene7x" in notice.inner_text()
    assert one.state["gene"] == "Gene00"
    one.page.keyboard.press("Escape")  # closes the list of matches
    one.page.keyboard.press("Escape")
    notice.wait_for(state="hidden")
    assert [told for told in one.complaints if "Failed to load resource" not in told] == []
    one.complaints.clear()  # the browser itself reports the refused request


@pytest.mark.slow
def test_unknown_gene_in_the_address_is_reported_and_the_page_works(seen):
    one = seen("#d=0&g=Nowhere")
    one.page.locator("#notice").wait_for()
    assert "Nowhere" in one.page.locator("#notice").inner_text()
    assert one.state["gene"] == "Gene00"
    one.complaints.clear()


def lassoed(one: Seen) -> None:
    one.page.locator("#lasso").click()
    corners = [(0.3, 0.3), (0.6, 0.32), (0.6, 0.7), (0.45, 0.75), (0.3, 0.7)]
    one.page.mouse.move(*one.at(*corners[0]))
    one.page.mouse.down()
    for corner in corners[1:]:
        one.page.mouse.move(*one.at(*corner), steps=4)
    one.page.mouse.up()
    one.page.locator("#compare tbody tr").first.wait_for()
    one.settle()


@pytest.mark.slow
def test_lasso_by_mouse_compares_the_region(seen):
    one = seen("#d=0&m=imputed")
    lassoed(one)
    assert 50 < one.state["selected"] < 600
    assert f"{one.state['selected']} cells inside" in one.page.locator("#region-count").inner_text()
    scores = [
        float(text.replace("−", "-").replace("–", "0"))
        for text in one.page.locator("#compare td:last-child").all_inner_texts()
    ]
    assert np.all(np.diff(np.abs(scores)) <= 0)
    gene = one.page.locator("#compare button.gene").nth(1).inner_text()
    one.page.locator("#compare button.gene").nth(1).click()
    one.settle()
    assert one.state["gene"] == gene
    assert one.page.locator("#compare tr[aria-current]").get_attribute("data-gene") == gene


@pytest.mark.slow
def test_comparison_is_saved_as_csv(seen):
    one = seen("#d=0&m=imputed")
    lassoed(one)
    with one.page.expect_download() as saving:
        one.page.locator("#download").click()
    assert saving.value.suggested_filename == "imputed_region.csv"
    rows = list(csv.DictReader(saving.value.path().read_text(encoding="utf-8").splitlines()))
    assert len(rows) == N_GENES
    assert set(rows[0]) == {"gene", "inside", "outside", "difference", "reliability", "measured", "score"}
    assert float(rows[0]["difference"]) == pytest.approx(
        float(rows[0]["inside"]) - float(rows[0]["outside"]), abs=1e-5
    )


@pytest.mark.slow
def test_region_by_keyboard(seen):
    one = seen()
    for key in ["l", "ArrowLeft", "ArrowUp", "Shift+ArrowRight", "Shift+ArrowDown", "Enter"]:
        one.page.keyboard.press(key)
    one.page.locator("#compare tbody tr").first.wait_for()
    assert one.settle().state["selected"] > 20
    one.page.keyboard.press("Escape")
    one.settle()
    assert one.state["selected"] == 0
    assert one.page.locator("#region").is_hidden()


@pytest.mark.slow
def test_reload_gives_the_same_picture(seen):
    one = seen("#d=0&g=Gene05&c=cell_type&m=column,imputed")
    one.page.mouse.move(*one.at(0.4, 0.4))
    one.page.mouse.wheel(0, -500)
    lassoed(one.settle())
    one.page.locator("#legend [data-code='1']").click()
    one.settle()
    one.page.wait_for_timeout(300)  # the address is updated after the camera stops
    before, picture = one.state, one.pixels("imputed")
    address = one.page.url
    one.page.reload()
    one.settle()
    one.page.locator("#compare tbody tr").first.wait_for()
    assert one.page.url == address
    after = one.state
    assert after.pop("centre") == pytest.approx(before.pop("centre"))
    assert after.pop("zoom") == pytest.approx(before.pop("zoom"))
    assert after == before
    assert one.state["zoom"] > 0.5
    assert changed(picture, one.pixels("imputed")) < 0.01


@pytest.mark.slow
def test_keyboard_shortcuts(seen):
    one = seen()
    start = one.state
    press = one.page.keyboard.press
    press("+")
    press("ArrowRight")
    assert one.settle().state["zoom"] == start["zoom"] + 0.5
    assert one.state["centre"][0] > start["centre"][0]
    press("0")
    assert one.settle().state["centre"] == start["centre"]
    press("]")
    one.page.wait_for_function("() => window.cellweft.state().gene === 'Gene01'")
    press("[")
    one.page.wait_for_function("() => window.cellweft.state().gene === 'Gene00'")
    press("4")
    one.page.wait_for_function("() => window.cellweft.state().panels.length === 2")
    press("i")
    one.page.locator("#card.pinned").wait_for()
    assert "Gene00 imputed" in one.page.locator("#card").inner_text()
    press("Escape")
    one.page.locator("#card").wait_for(state="hidden")
    press("?")
    assert one.page.locator("#help").is_visible()
    press("Escape")
    assert not one.page.locator("#help").is_visible()


@pytest.mark.slow
def test_every_control_is_reached_by_tab_and_shows_its_focus(seen):
    one = seen("#d=0&m=column,imputed")
    reached, shown = set(), []
    for _ in range(30):
        one.page.keyboard.press("Tab")
        told = one.page.evaluate(
            "() => { const e = document.activeElement; const s = getComputedStyle(e);"
            " return [e.id || e.dataset.toggles || e.dataset.code || e.tagName, s.outlineStyle] }"
        )
        reached.add(told[0])
        shown.append(told[1])
    assert {
        "dataset",
        "search",
        "color",
        "theme",
        "help-button",
        "lasso",
        "fit",
        "imputed",
        "0",
        "CANVAS",
    } <= reached
    assert shown.count("none") <= 1  # the end of the page, before the focus returns to its start


@pytest.mark.slow
def test_labels_are_coloured_and_switched_off(seen):
    one = seen()
    one.page.locator("#color").select_option("cell_type")
    one.settle()
    assert one.state["panels"][0] == "column"
    before = one.pixels("column")
    assert one.page.locator("#legend [data-code]").count() == 3
    one.page.locator("#legend [data-code='0']").click()
    one.settle()
    assert one.page.locator("#legend [data-code='0']").get_attribute("aria-pressed") == "false"
    assert changed(before, one.pixels("column")) > 0.08
    one.page.locator("#legend [data-code='0']").click()
    one.settle()
    assert changed(before, one.pixels("column")) < 0.01
    one.page.locator("#color").select_option("depth")
    one.settle()
    assert one.page.locator("#legend h3").last.inner_text() == "depth"


@pytest.mark.slow
def test_placed_cells_are_drawn_on_their_tissue(seen):
    one = seen()
    one.page.locator("#dataset").select_option("1")
    one.page.wait_for_function("() => window.cellweft.state().dataset === 1")
    assert one.settle().state["panels"] == ["column"]
    with_tissue = one.pixels("column")
    one.page.locator("#tissue").click()
    one.settle()
    assert changed(with_tissue, one.pixels("column")) > 0.05
    one.page.go_back()
    one.page.go_back()
    one.page.wait_for_function("() => window.cellweft.state().dataset === 0")


@pytest.mark.slow
def test_slices_are_shown_one_by_one(seen):
    one = seen("#d=1&t=0")
    before = one.pixels("column")
    one.page.locator("#slice").select_option("s1")
    one.settle()
    assert "s=s1" in one.page.url
    assert changed(before, one.pixels("column")) > 0.02
    for key in [
        "l",
        "Shift+ArrowRight",
        "Shift+ArrowDown",
        *["Shift+ArrowRight", "Shift+ArrowDown"] * 30,
        "Enter",
    ]:
        one.page.keyboard.press(key)
    assert one.settle().state["selected"] == 20  # only cells of this slice


@pytest.mark.slow
def test_card_of_a_cell_shows_its_values(seen):
    one = seen("#d=0&g=Gene03&m=column,imputed")
    one.page.mouse.move(*one.at(0.5, 0.5))
    one.page.locator("#card").wait_for()
    text = one.page.locator("#card").inner_text()
    assert "Gene03 imputed" in text
    assert "middle" in text
    one.page.mouse.click(*one.at(0.5, 0.5))
    one.page.locator("#card.pinned").wait_for()


@pytest.mark.slow
def test_drag_and_wheel_move_all_panels(seen):
    one = seen()
    before = {layer: one.pixels(layer) for layer in one.state["panels"]}
    one.page.mouse.move(*one.at(0.5, 0.5))
    one.page.mouse.wheel(0, -400)
    one.page.mouse.down()
    one.page.mouse.move(*one.at(0.7, 0.6), steps=5)
    one.page.mouse.up()
    one.settle()
    assert one.state["zoom"] > 0.5
    for layer, picture in before.items():
        assert changed(picture, one.pixels(layer)) > 0.1


@pytest.mark.slow
def test_dark_mode_follows_the_system_and_the_switch(seen):
    dark, light = seen(color_scheme="dark"), seen()
    assert dark.pixels("imputed")[0].mean() < 40
    assert light.pixels("imputed")[0].mean() > 220
    light.page.locator("#theme").click()
    light.settle()
    assert light.pixels("imputed")[0].mean() < 40
    light.page.reload()
    assert light.settle().pixels("imputed")[0].mean() < 40  # the choice is remembered


@pytest.mark.slow
def test_narrow_window_works(seen):
    one = seen(viewport={"width": 390, "height": 760})
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 390
    one.choose("Gene12")
    assert one.page.locator(".panel").count() == 3


@pytest.mark.slow
def test_a_sample_of_a_million_cells_is_drawn_as_they_move(browser, tmp_path):
    """The speed of movements is measured by benchmarks/view_browser.py."""
    random = np.random.default_rng(0)
    n_cells = 1_000_000
    AnnData(
        random.gamma(1, 1, (n_cells, 2)).astype(np.float32),
        obs=pd.DataFrame(index=pd.RangeIndex(n_cells).astype(str)),
        var=pd.DataFrame({"measured": False, "reliability": 0.5}, index=["A", "B"]),
        obsm={"spatial": random.uniform(0, 5000, (n_cells, 2)).astype(np.float32)},
        uns={"cellweft": {"schema_version": SCHEMA_VERSION}},
    ).write_h5ad(tmp_path / "imputed.h5ad")
    with view(tmp_path / "imputed.h5ad", open_browser=False, block=False) as viewer:
        context = browser.new_context(viewport=SIZE)
        one = Seen(context.new_page(), viewer).open()
        one.page.mouse.move(*one.at(0.5, 0.5))
        one.page.mouse.down()
        one.page.evaluate(
            """([x, y]) => new Promise((done) => {
              let step = 0;
              const frame = () => {
                const place = { pointerId: 1, clientX: x + 60 * Math.sin(step / 8), clientY: y };
                document.querySelector(".panel canvas").dispatchEvent(new PointerEvent("pointermove", place));
                if (++step < 60) requestAnimationFrame(frame);
                else done();
              };
              frame();
            })""",
            one.at(0.5, 0.5),
        )
        frames = one.page.evaluate("window.cellweft.frames()")
        one.page.mouse.up()
        context.close()
    assert frames["firstPicture"] is not None
    assert 0 < frames["cells"] < n_cells  # a sample, because drawing all cells takes too long


@pytest.mark.slow
def test_gene_typed_next_replaces_the_last(seen):
    one = seen().choose("Gene23")
    one.page.keyboard.type("gene05")  # the field still has the focus
    assert one.page.locator("#search").input_value() == "gene05"
    one.page.keyboard.press("Enter")
    one.page.wait_for_function("() => window.cellweft.state().gene === 'Gene05'")


@pytest.mark.slow
def test_gene_typed_after_a_click_replaces_the_last(seen):
    one = seen().choose("Gene05")
    one.page.locator("#search").click()
    one.page.keyboard.type("gene07")
    assert one.page.locator("#search").input_value() == "gene07"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "said"), [("gene23", "1 gene matches"), ("gene1", "10 genes match"), ("zz", "0 genes match")]
)
def test_the_number_of_matches_is_in_good_english(seen, typed, said):
    one = seen()
    one.page.keyboard.press("/")
    one.page.keyboard.type(typed)
    assert one.page.locator("#status").inner_text() == said


@pytest.mark.slow
def test_search_explains_its_marks(seen):
    one = seen()
    one.page.keyboard.press("/")
    one.page.keyboard.press("ArrowDown")
    hint = one.page.locator("#options .hint").inner_text()
    assert "on the panel" in hint
    assert "reliability" in hint
    for layer, words in {"measured": "Measured", "imputed": "Predicted", "uncertainty": "interval"}.items():
        assert words in one.page.locator(f"[data-toggles={layer}]").get_attribute("title")


@pytest.mark.slow
def test_status_and_counts_follow_dataset_slice_and_labels(seen):
    one = seen()
    status = one.page.locator("#status")
    assert status.inner_text() == "900 cells · 40 genes · ? for help"
    one.choose("Gene23")
    assert "Gene23" in status.inner_text()
    one.page.locator("#dataset").select_option("1")
    one.page.wait_for_function("() => window.cellweft.state().dataset === 1")
    one.settle()
    assert status.inner_text() == "60 cells · ? for help"
    one.page.locator("#color").select_option("cell_type")
    one.settle()
    one.page.locator("#slice").select_option("s1")
    one.settle()
    assert status.inner_text() == "20 of 60 cells · slice s1 · ? for help"
    assert one.page.locator("#legend .number").all_inner_texts() == ["10", "10"]
    one.page.locator("#legend [data-code='0']").click()
    one.settle()
    assert status.inner_text() == "10 of 60 cells · slice s1 · ? for help"
    assert one.page.locator("#legend .number").all_inner_texts() == ["10", "10"]


@pytest.mark.slow
def test_uncertainty_starts_at_its_lowest_values(seen):
    one = seen()
    ends = [
        scale.locator(".ends span").all_inner_texts() for scale in one.page.locator("#legend .scale").all()
    ]
    assert float(ends[0][0]) == 0
    assert float(ends[1][0]) > 0.1  # no interval is narrower than 0.2
    assert float(ends[1][2]) > float(ends[1][0])


@pytest.mark.slow
def test_scale_bar_has_a_unit(seen):
    one = seen()
    assert one.page.locator(".bar-text").first.inner_text().split()[1] in ("units", "unit", "µm")


@pytest.mark.slow
def test_three_panels_fill_the_stage(seen):
    one = seen(viewport={"width": 1280, "height": 900})
    assert len(one.state["panels"]) == 3
    stage = one.page.locator("#panels").bounding_box()
    panel = one.page.locator(".panel").first.bounding_box()
    side = min(panel["width"], panel["height"])  # the tissue is a square
    assert 3 * side**2 > 0.5 * stage["width"] * stage["height"]


@pytest.mark.slow
def test_low_values_are_visible_on_a_dark_background(seen):
    one = seen(color_scheme="dark")
    ground = np.array([14, 17, 18])
    ramps = one.page.locator("#legend .ramp").all()
    assert ramps
    for ramp in ramps:
        first = re.search(r"rgb\((\d+), (\d+), (\d+)\)", ramp.evaluate("e => e.style.background"))
        assert np.abs(np.array(first.groups(), dtype=int) - ground).max() > 40


@pytest.mark.slow
def test_legend_lists_all_labels_on_request(browser, tmp_path):
    number = 40
    result = AnnData(
        np.ones((number * 2, 3), dtype=np.float32),
        obs=pd.DataFrame({"cell_type": [f"type {at % number:02d}" for at in range(number * 2)]}).set_index(
            pd.Index([f"c{at}" for at in range(number * 2)])
        ),
        var=pd.DataFrame(
            {"measured": [True, False, False], "reliability": [0.5] * 3}, index=pd.Index(["A", "B", "C"])
        ),
        obsm={"spatial": np.random.default_rng(0).uniform(0, 100, (number * 2, 2))},
        uns={"cellweft": {"schema_version": SCHEMA_VERSION}},
    )
    result.write_h5ad(tmp_path / "many.h5ad")
    with view(tmp_path / "many.h5ad", open_browser=False, block=False) as served:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(served.url)
        page.wait_for_function(SETTLED)
        page.locator("#color").select_option("cell_type")
        page.wait_for_function(SETTLED)
        entries = page.locator("#legend .entries li:visible")
        assert entries.count() == 12
        button = page.get_by_role("button", name="Show all 40 labels")
        assert button.get_attribute("aria-expanded") == "false"
        button.click()
        assert entries.count() == number
        inner = page.locator("#legend .entries").evaluate("e => e.scrollHeight - e.clientHeight")
        assert inner == 0  # the list clips nothing
        page.get_by_role("button", name="Show the first 12").click()
        assert entries.count() == 12
        page.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(seen, serious_faults, scheme):
    one = seen(color_scheme=scheme)
    assert serious_faults(one.page) == []
    one.choose("Gene23")
    assert serious_faults(one.page) == []
