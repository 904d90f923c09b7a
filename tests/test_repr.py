"""Text of objects in a terminal and in a notebook."""

import numpy as np
import pytest

import cellweft
from cellweft._text import NotebookText
from cellweft.data._pair import Pair

QUICK = {"steps": 3, "fold_steps": 3, "level_steps": 3}


def test_an_imputer_shows_whether_and_to_what_it_was_fitted(tissue_pair: Pair) -> None:
    imputer = cellweft.Imputer(settings=QUICK, reliability=False, device="cpu")
    assert repr(cellweft.Imputer()) == "Imputer(preset='auto', seed=0, not fitted)"
    known = f"Imputer(preset='auto', seed=0, settings={QUICK!r}, reliability=False, "
    assert repr(imputer) == f"{known}not fitted)"
    imputer.fit(tissue_pair, progress=False)
    assert repr(imputer) == f"{known}fitted to {tissue_pair!r})"
    assert "settings: steps" in imputer._repr_html_()
    assert repr(imputer.plan()).startswith("Plan(")
    assert "peak memory about" in repr(imputer.plan())


def test_a_placer_and_a_placement_show_their_data(tissue_pair: Pair) -> None:
    placer = cellweft.Placer(settings={"steps": 2, "models": 1}, device="cpu")
    assert repr(cellweft.Placer()) == "Placer(preset='auto', seed=0, not fitted)"
    placement = placer.fit(tissue_pair, progress=False).place(progress=False)
    known = "Placer(preset='auto', seed=0, settings={'steps': 2, 'models': 1}, fitted to Pair("
    assert repr(placer).startswith(known)
    assert "cells without counts" in placement._repr_html_()
    assert "training steps" in repr(placer.plan(pair=tissue_pair))


def test_a_loaded_imputer_says_that_it_has_no_data(tissue_pair: Pair, tmp_path: object) -> None:
    imputer = cellweft.Imputer(settings=QUICK, reliability=False, device="cpu").fit(
        tissue_pair, progress=False
    )
    path = imputer.save(f"{tmp_path}/model")
    assert repr(cellweft.load(path)).endswith("reliability=False, loaded, without data)")


def test_trends_show_how_many_genes_vary() -> None:
    position = np.linspace(0.0, 1.0, 40)
    values = np.column_stack([3 * position, np.ones(40)])
    trends = cellweft.tl.gene_trends(values, position, genes=np.array(["Rising", "Even"]), progress=False)
    assert repr(trends) == "Trends(2 genes in 1 cell type; 1 with FDR below 0.05; see .table)"


def test_text_in_a_notebook_is_escaped(tissue_pair: Pair) -> None:
    class Odd(NotebookText):
        def __repr__(self) -> str:
            return "Odd(<script>)"

        def _details(self) -> str:
            return "<b>"

    assert Odd()._repr_html_() == (
        "<details><summary>Odd(&lt;script&gt;)</summary><pre>&lt;b&gt;</pre></details>"
    )
    assert "cautions" in tissue_pair._repr_html_()


@pytest.mark.parametrize("name", ["Imputer", "Placer", "Placement", "Pair"])
def test_every_public_object_has_a_notebook_text(name: str) -> None:
    assert issubclass(getattr(cellweft, name), NotebookText)
