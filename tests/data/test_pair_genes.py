"""Genes of both sides: the orientation of tables, real gene names, and the names in results."""

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import cellweft
from cellweft._errors import GeneError
from cellweft.cli import app
from cellweft.data._pair import pair
from cellweft.impute.imputer import Imputer

SYMBOLS = ["Gad1", "Sst", "Vip", "Pvalb", "Lamp5", "Fos", "Slc17a7", "Gfap", "Mbp", "Plp1"]
IDS = [f"ENSMUSG{number:011d}" for number in range(10)]
PANEL = SYMBOLS[:6]


def side(names: Any, n_cells: int = 12, *, spatial: bool = False, seed: int = 0, **var: Any) -> ad.AnnData:
    counts = np.random.default_rng(seed).poisson(3.0, (n_cells, len(names))).astype(np.float32)
    data = ad.AnnData(counts, var=pd.DataFrame(var, index=pd.Index([str(name) for name in names])))
    data.obs_names = [f"cell{number}" for number in range(n_cells)]
    if spatial:
        data.obsm["spatial"] = np.random.default_rng(seed).uniform(0, 100, (n_cells, 2))
    return data


def turned(data: ad.AnnData, path: Path, cells: Any) -> Path:
    """Write a table of genes x cells, as R does."""
    table = pd.DataFrame(data.X.T.astype(int), index=data.var_names, columns=cells)
    table.to_csv(path)
    return path


@pytest.mark.parametrize("first", [0, 1])
def test_two_tables_of_genes_by_cells_are_recognised(first: int, tmp_path: Path) -> None:
    sc, st = side(SYMBOLS, 30), side(PANEL, 20)
    paths = [
        turned(data, tmp_path / f"{name}.csv", range(first, data.n_obs + first))
        for name, data in (("sc", sc), ("st", st))
    ]
    with pytest.raises(
        GeneError, match=r"got 6 rows of the same name \('Fos', 'Gad1', .*If the rows are genes, transpose"
    ):
        pair(*paths, coordinates="none")
    named = [
        turned(data, tmp_path / f"{name}2.csv", [f"{name}{one}x" for one in range(data.n_obs)])
        for name, data in (("sc", sc), ("st", st))
    ]
    with pytest.raises(
        GeneError, match=r"got 6 rows of the same name .* transpose both inputs to cells x genes"
    ):
        pair(*named, coordinates="none")
    alike = [
        turned(data, tmp_path / f"{name}3.csv", [f"cell_{one}" for one in range(data.n_obs)])
        for name, data in (("sc", sc), ("st", st))
    ]
    with pytest.raises(
        GeneError, match=r"columns named like cells\. If the rows are genes, transpose both inputs to cells x"
    ):
        pair(*alike, coordinates="none")


def test_one_table_of_genes_by_cells_is_recognised(tmp_path: Path) -> None:
    st = side(PANEL, 20, spatial=True)
    path = turned(side(SYMBOLS, 30), tmp_path / "sc.csv", range(30))
    with pytest.raises(GeneError, match=r"The rows of sc .* are named like genes: transpose it"):
        pair(path, st)
    path = turned(side(PANEL, 30), tmp_path / "st.csv", [f"c{one}" for one in range(30)])
    with pytest.raises(GeneError, match=r"The rows of st .* are named like genes: transpose it"):
        pair(side(SYMBOLS), path, coordinates="none")


@pytest.mark.parametrize(
    "names", [range(10), range(1, 11), [f"V{one}" for one in range(1, 11)], [0, 3, 4, 9]]
)
def test_running_numbers_are_not_gene_names(names: Any) -> None:
    names = list(names)
    data = side(names)
    tissue = side(names, spatial=True)
    data.obs_names = [f"a-{one}" for one in range(12)]
    with pytest.raises(
        GeneError, match=r"sc .*var_names: expected names of genes, got numbers that only index"
    ):
        pair(data, tissue)
    symbols = SYMBOLS[: len(names)]
    numbered = side(names, feature_name=symbols, chromosome=["1"] * len(names))
    made = pair(numbered, side(symbols, spatial=True))
    assert made.shared_genes.tolist() == sorted(symbols)
    expected = "Reference: var_names only number the genes. Gene names are taken from var['feature_name']."
    assert expected in made.cautions


def test_numeric_names_are_entrez_ids_unless_symbols_exist() -> None:
    entrez = [14415, 20604, 22353, 19293, 53867, 14281, 72961, 14580, 17196, 18823]
    made = pair(side(entrez), side(entrez[:6], spatial=True))
    assert len(made.shared_genes) == 6
    assert "The names that match are whole numbers. They are interpreted as Entrez gene IDs." in made.cautions
    made = pair(side(entrez, gene_symbol=SYMBOLS), side(PANEL, spatial=True))
    assert made.shared_genes.tolist() == sorted(PANEL)
    assert made.findings["gene_bridge"].endswith("matched through var['gene_symbol'] of the reference")
    assert made.sc.gene_ids.tolist() == [str(one) for one in entrez]
    made = pair(side(SYMBOLS, entrez_id=entrez), side(entrez[:6], spatial=True))
    assert (
        made.findings["gene_bridge"]
        == "numbers of the spatial data matched through var['entrez_id'] of the reference"
    )


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda name: f" {name} ",
        lambda name: f"mm10___{name}",
        lambda name: f"GRCm38_{name}",
        lambda name: name.replace("-", "."),
        lambda name: name.replace("-", "_"),
        lambda name: f"X{name}" if name[0].isdigit() else name.replace("-", "."),
    ],
)
def test_names_that_tools_change_match_with_a_caution(change: Any) -> None:
    names = ["H2-K1", "Nkx2-1", "1700020I14Rik", "mt-Nd1", "Gad1", "Sst"]
    tissue_names = [change(name) for name in names[:5]]
    made = pair(side(names), side(tissue_names, spatial=True))
    assert made.shared_genes.tolist() == sorted(tissue_names)
    assert made.sc.genes.tolist() == [*tissue_names, "Sst"]
    assert made.sc.input_names.tolist() == names
    assert any("matched only" in one for one in made.cautions)
    assert made.find_genes(names).tolist() == [0, 1, 2, 3, 4, 5]
    assert made.find_genes(tissue_names).tolist() == [0, 1, 2, 3, 4]


def test_every_column_of_names_is_tried_if_few_genes_match() -> None:
    tissue = side([f"probe_{one}x" for one in range(6)], spatial=True, target=PANEL, well=["a"] * 6)
    made = pair(side(SYMBOLS), tissue)
    assert (
        made.findings["gene_bridge"]
        == "symbols of the reference matched through var['target'] of the spatial data"
    )
    both = pair(
        side(IDS, gene_name=SYMBOLS), side([f"p{one}x" for one in range(6)], spatial=True, symbol=PANEL)
    )
    assert (
        both.findings["gene_bridge"]
        == "var['gene_name'] of the reference and var['symbol'] of the spatial data"
    )


def test_genes_matched_through_ids_have_the_names_of_the_tissue() -> None:
    symbols = [*SYMBOLS[:8], "Dup", "Dup"]
    made = pair(side(IDS, feature_name=symbols), side(["GAD1", *PANEL[1:]], spatial=True))
    assert made.shared_genes.tolist() == sorted(["GAD1", *PANEL[1:]])
    assert made.sc.genes.tolist() == ["GAD1", *SYMBOLS[1:8], *IDS[8:]]  # a symbol of two genes names neither
    assert made.sc.symbols.tolist() == symbols
    assert made.sc.gene_ids.tolist() == IDS
    for asked in ("GAD1", "Gad1", "gad1", IDS[0], IDS[0] + ".4"):
        assert made.find_genes([asked]).tolist() == [0]
        assert made.panel([asked, "Sst"]).shared_genes.tolist() == ["GAD1", "Sst"]
    with pytest.raises(GeneError, match=r"genes: expected one gene, got 'Dup', which may be 'ENSMUSG.*8'"):
        made.find_genes(["Dup"])
    with pytest.raises(GeneError, match=r"Did you mean 'Gfap'"):
        made.find_genes(["Gfapp"])


def test_symbols_of_the_tissue_are_given_to_the_reference() -> None:
    made = pair(side(IDS), side(PANEL, spatial=True, gene_ids=IDS[:6]))
    assert made.sc.genes.tolist() == [*PANEL, *IDS[6:]]
    assert made.sc.symbols.tolist() == [*PANEL, *[""] * 4]
    made = pair(side(SYMBOLS, gene_ids=IDS), side(IDS[:6], spatial=True, feature_name=PANEL))
    assert made.sc.genes.tolist() == IDS
    assert made.sc.symbols.tolist() == SYMBOLS


def test_another_reference_uses_the_same_names() -> None:
    made = pair(side(IDS, feature_name=SYMBOLS), side(PANEL, spatial=True))
    other = made.with_reference(side([name.upper() for name in SYMBOLS], seed=4))
    assert other.shared_genes.tolist() == made.shared_genes.tolist()
    assert other.sc.genes[other.sc_shared].tolist() == made.shared_genes.tolist()
    assert other.sc.input_names[other.sc_shared].tolist() == [name.upper() for name in made.shared_genes]
    ids = made.with_reference(side(IDS, seed=5))
    assert ids.sc.genes[ids.sc_shared].tolist() == made.shared_genes.tolist()


@pytest.mark.parametrize("kind", ["ids", "case", "spelling"])
def test_results_can_be_joined_with_the_tissue(kind: str, tmp_path: Path) -> None:
    reference = side(SYMBOLS, 60) if kind != "ids" else side(IDS, 60, feature_name=SYMBOLS)
    names = {
        "ids": PANEL,
        "case": [one.upper() for one in PANEL],
        "spelling": [f"mm10_{one}" for one in PANEL],
    }[kind]
    tissue = side(names, 40, spatial=True)
    sc, st, out = tmp_path / "sc.h5ad", tmp_path / "st.h5ad", tmp_path / "out.h5ad"
    reference.write_h5ad(sc)
    tissue.write_h5ad(st)
    more = ["--set", "steps=5", "--set", "fold_steps=4", "--set", "level_steps=5", "--quiet"]
    done = CliRunner().invoke(
        app, ["impute", str(sc), str(st), "-o", str(out), "--genes", "Gad1,gfap", *more]
    )
    assert done.exit_code == 0, done.output
    result = ad.read_h5ad(out)
    assert result.var_names.tolist() == [names[0], "Gfap"]
    assert result.var["symbol"].tolist() == ["Gad1", "Gfap"]
    assert result.var["reference_name"].tolist() == [reference.var_names[0], reference.var_names[7]]
    assert result.var["measured"].tolist() == [True, False]
    if kind == "ids":
        assert result.var["gene_id"].tolist() == [IDS[0], IDS[7]]
    joined = ad.concat([result, tissue], index_unique="-")
    assert joined.var_names.tolist() == [names[0]]
    imputer = Imputer(settings={"steps": 5, "fold_steps": 4, "level_steps": 5}).fit(pair(reference, tissue))
    assert imputer.impute(["Gad1"]).var_names.tolist() == [names[0]]


@pytest.mark.slow
def test_symbols_are_shown_where_the_tissue_has_ids(tmp_path: Path) -> None:
    reference = side(SYMBOLS, 60, gene_ids=IDS)
    tissue = side(IDS[:6], 40, spatial=True)
    settings = {"steps": 5, "fold_steps": 4, "level_steps": 5}
    result = Imputer(settings=settings).fit(pair(reference, tissue)).impute()
    assert result.var_names.tolist() == IDS
    assert result.var["symbol"].tolist() == SYMBOLS
    both = pair(reference, tissue)
    page = cellweft.report(tmp_path / "r.html", result, both, genes=["Gad1"]).read_text()
    assert "Gad1: measured, imputed" in re.sub(r"<[^>]*>", "", page)
    with cellweft.view(result, tissue=tissue, open_browser=False, block=False, token=False) as viewer:
        genes = json.load(urllib.request.urlopen(f"{viewer.url}api/datasets/0/genes"))
    assert genes["names"] == SYMBOLS
    axes = cellweft.pl.gene(result, "Sst", measured=pair(reference, tissue))
    assert [one.get_title() for one in axes] == ["Sst, measured", "Sst, imputed"]


def test_rows_with_gene_names_are_recognised_in_any_spelling(tmp_path: Path) -> None:
    st = side([name.upper() for name in PANEL], 20, spatial=True)
    barcodes = [
        f"{'ACGTACGTACGT'}{'ACGT'[one % 4]}{'ACGT'[one // 4 % 4]}{'ACGT'[one // 16]}-1" for one in range(30)
    ]
    path = turned(side(SYMBOLS, 30), tmp_path / "sc.csv", barcodes)
    with pytest.raises(
        GeneError, match=r"rows named like the other input's genes \(6: 'Gad1', .*transpose it"
    ):
        pair(path, st)
    versions = side([f"{one}.7" for one in IDS], 30)
    path = turned(versions, tmp_path / "ids.csv", barcodes)
    with pytest.raises(GeneError, match=r"rows named like the other input's genes .*transpose it"):
        pair(path, side(IDS[:6], 20, spatial=True))
    with pytest.raises(
        GeneError, match=r"columns named like cells \('ACGT.*If its rows are genes, transpose it"
    ):
        pair(path, st)


def test_a_column_of_names_next_to_numbered_rows_is_suggested(tmp_path: Path) -> None:
    counts = side(SYMBOLS, 30)
    table = pd.DataFrame(counts.X.T, columns=[f"{one}-cell" for one in range(30)])
    table.insert(0, "gene_name", SYMBOLS)
    table.to_csv(tmp_path / "sc.csv")
    with pytest.raises(GeneError, match=r"rows named like the other input's genes \(6: .*transpose it"):
        pair(tmp_path / "sc.csv", side(PANEL, 20, spatial=True))


def test_two_tables_with_cells_of_one_series_are_recognised() -> None:
    made = [
        ad.AnnData(
            data.X.T, obs=pd.DataFrame(index=data.var_names), var=pd.DataFrame(index=data.obs_names.str[4:])
        )
        for data in (side(SYMBOLS, 30), side(PANEL, 20))
    ]
    for data in made:
        data.var_names = "S" + data.var_names
    with pytest.raises(GeneError, match=r"6 rows of the same name .* transpose both inputs to cells x genes"):
        pair(*made, coordinates="none")


@pytest.mark.parametrize(
    "form", ["mm10-{}", "gene-{}", "rna_{}", "{}_ENSMUSG00000070880", "ENSMUSG00000070880.5|{}"]
)
def test_names_with_extra_parts_match_with_a_caution(form: str) -> None:
    made = pair(side([form.format(name) for name in SYMBOLS]), side(PANEL, spatial=True))
    assert made.shared_genes.tolist() == sorted(PANEL)
    assert any("6 genes matched only by an alternative spelling" in one for one in made.cautions)


def test_duplicate_symbols_in_a_column_for_matching_are_reported() -> None:
    sc = side(IDS, feature_name=[*SYMBOLS[:9], "Gad1"])
    made = pair(sc, side(PANEL, spatial=True))
    assert made.shared_genes.tolist() == sorted(PANEL[1:])
    assert any(
        one.startswith("1 gene left out because several genes have this name") for one in made.cautions
    )
    assert not any("not in the reference" in one for one in made.cautions)


def test_placeholders_for_missing_names_match_nothing() -> None:
    nameless = ["NA.1", "nan-1", "--", "?", "Unknown"]
    made = pair(side([*nameless, *SYMBOLS]), side([*nameless, *PANEL], spatial=True))
    assert made.shared_genes.tolist() == sorted(PANEL)
    assert any(one == "Spatial: 5 genes without a name (empty, 'nan') left out." for one in made.cautions)


def test_a_reference_whose_other_genes_are_empty_leaves_nothing_to_impute() -> None:
    sc = side(SYMBOLS)
    sc.X[:, 6:] = 0
    made = pair(sc, side(PANEL, spatial=True))
    assert any("no gene with counts outside the panel" in one for one in made.cautions)


def test_columns_of_the_tissue_with_far_larger_values_than_genes_are_reported() -> None:
    st = side([*PANEL, "brightness", "contrast"], spatial=True)
    st.X[:, 6:] = 500
    made = pair(side(SYMBOLS), st)
    assert any(
        "that are not in the reference make up 98% of a typical cell's values" in one for one in made.cautions
    )


def test_running_numbers_as_gene_names_on_both_sides_are_reported(make_side: Any) -> None:
    said = "Gene names are numbers in both inputs"
    numbered = [f"gene_{one}" for one in range(30)]
    made = pair(make_side(numbered, n_cells=30), make_side(numbered[:20], n_cells=30, spatial=True))
    assert any(one.startswith(said) for one in made.cautions)
    panel = make_side(numbered[3:20], n_cells=30, spatial=True)  # a panel taken from the same genes
    assert not any(one.startswith(said) for one in pair(make_side(numbered, n_cells=30), panel).cautions)


def test_numbered_genes_whose_names_are_in_raw(make_side: Any) -> None:
    sc, tissue = make_side(SYMBOLS, n_cells=30), make_side(SYMBOLS[:8], n_cells=30, spatial=True)
    sc.raw = sc.copy()
    sc.var_names = [str(number) for number in range(len(SYMBOLS))]
    with pytest.raises(GeneError, match=r"They may be in its raw slot: sc_layer='raw'\."):
        pair(sc, tissue)
    assert len(pair(sc, tissue, sc_layer="raw").shared_genes) == 8
