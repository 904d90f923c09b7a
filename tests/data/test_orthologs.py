"""Two species: genes match by one-to-one orthologs, and genes without one are counted."""

import gzip
import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

import cellweft
from cellweft._errors import FormatError, GeneError, MissingFileError, SettingError
from cellweft.cli import app
from cellweft.data._pair import inputs_of
from cellweft.data.orthologs import TABLES, read_orthologs

HUMAN = ["GAD1", "TP53", "C11orf96", "SERPINA1", "CUX2"]
MOUSE = ["Cux2", "Gm13889", "Trp53", "Serpina1a"]


def cells(genes: list[str], n: int = 12) -> anndata.AnnData:
    """Return counts that differ between genes and between cells."""
    counts = np.random.default_rng(len(genes)).poisson(5.0, (n, len(genes))) + 1
    return anndata.AnnData(
        sp.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(index=[f"c{number}" for number in range(n)]),
        var=pd.DataFrame(index=genes),
        obsm={"spatial": np.arange(2.0 * n).reshape(n, 2)},
    )


def test_human_cells_and_a_mouse_tissue() -> None:
    sc, st = cells(HUMAN), cells(MOUSE)
    pair = cellweft.pair(sc, st, orthologs="human:mouse")
    # SERPINA1 has five orthologs, and none of them is one-to-one.
    assert pair.shared_genes.tolist() == ["Cux2", "Gm13889", "Trp53"]
    assert pair.sc.genes.tolist() == ["Gad1", "Trp53", "Gm13889", "Cux2"]
    assert pair.sc.input_names.tolist() == ["GAD1", "TP53", "C11orf96", "CUX2"]
    assert pair.sc.symbols.tolist() == ["Gad1", "Trp53", "Gm13889", "Cux2"]
    assert pair.sc.gene_ids[1] == "ENSMUSG00000059552"
    np.testing.assert_array_equal(pair.sc.stored(slice(0, 12)).toarray(), sc.X.toarray()[:, [0, 1, 2, 4]])
    # Genes without an ortholog still count towards the size of a cell.
    np.testing.assert_array_equal(pair.sc.totals, sc.X.toarray().sum(axis=1))
    assert "  orthologs     human:mouse; 1 gene without a one-to-one ortholog left out" in pair.summary()
    assert inputs_of(pair)["reference"]["orthologs"] == "human:mouse"
    assert not [one for one in pair.cautions if "ortholog" in one]
    assert pair.find_genes(["Gad1", "GAD1"]).tolist() == [0, 0]
    assert pair.with_reference(sc[:5].copy(), orthologs="human:mouse").sc.n_cells == 5


def test_mouse_cells_and_a_human_tissue_and_ids() -> None:
    pair = cellweft.pair(cells(MOUSE), cells(HUMAN), orthologs="mouse:human")
    assert pair.shared_genes.tolist() == ["C11orf96", "CUX2", "TP53"]
    ids = pd.read_csv(TABLES / "human_mouse.tsv.gz", sep="\t").set_index("human")
    named = cells([f"{ids.loc[name, 'human_id']}.4" for name in ("GAD1", "TP53", "CUX2")])
    found = cellweft.pair(named, cells(MOUSE), orthologs="human:mouse")
    assert found.shared_genes.tolist() == ["Cux2", "Trp53"]
    by_id = cells([str(ids.loc[name, "mouse_id"]) for name in ("GAD1", "TP53", "CUX2")])
    assert len(cellweft.pair(cells(HUMAN), by_id, orthologs="human:mouse").shared_genes) == 3


def test_species_in_the_wrong_order_are_reported() -> None:
    pair = cellweft.pair(cells(MOUSE), cells(HUMAN), orthologs="human:mouse")
    assert pair.shared_genes.tolist() == ["C11orf96", "CUX2", "TP53"]
    assert any("swapped, because the reference's genes are in its second" in one for one in pair.cautions)


@pytest.mark.parametrize(("name", "sep"), [("pairs.tsv", "\t"), ("pairs.csv", ","), ("pairs.tsv.gz", "\t")])
def test_a_custom_table(name: str, sep: str, tmp_path: Path) -> None:
    rows = [("human", "frog"), ("GAD1", "gad1.L"), ("TP53", "tp53.S"), ("CUX2", "cux2.L"), ("CUX2", "cux2.S")]
    text = "".join(f"{sep.join(row)}\n" for row in rows)
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    frog = cells(["tp53.S", "gad1.L", "cux2.L"])
    pair = cellweft.pair(cells(HUMAN), frog, orthologs=tmp_path / name)
    assert pair.shared_genes.tolist() == ["gad1.L", "tp53.S"]
    assert pair.findings["reference"]["genes_without_ortholog"] == 3
    assert any("1 gene in several pairs of orthologs left out" in one for one in pair.cautions)


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    sc, st = cells(HUMAN), cells(MOUSE)
    with pytest.raises(
        SettingError, match=r"comes with cellweft \('human:mouse', in either order\).*'human:frog'"
    ):
        cellweft.pair(sc, st, orthologs="human:frog")
    with pytest.raises(MissingFileError, match=r"orthologs='pairs\.tsv'.*nothing at this path"):
        cellweft.pair(sc, st, orthologs="pairs.tsv")
    (tmp_path / "one.tsv").write_text("GAD1\nTP53\n")
    with pytest.raises(FormatError, match=r"expected two columns.*got 1 column: 'GAD1', 'TP53'"):
        cellweft.pair(sc, st, orthologs=tmp_path / "one.tsv")
    (tmp_path / "frog.tsv").write_text("gad1.L\tgad1.S\n")
    with pytest.raises(GeneError, match=r"expected genes of the orthologs .*got none of them, but 'GAD1'"):
        cellweft.pair(sc, st, orthologs=tmp_path / "frog.tsv")


def test_the_included_table_is_one_to_one() -> None:
    table = read_orthologs("human:mouse")
    for kind in table.kinds:
        assert len(kind) == 16_506
        assert kind.iloc[:, 0].is_unique
        assert kind.iloc[:, 1].is_unique
    assert "CC0" in (TABLES / "README.md").read_text(encoding="utf-8")


def test_the_command(tmp_path: Path) -> None:
    for name, genes in (("sc", HUMAN), ("st", MOUSE)):
        cells(genes).write_h5ad(tmp_path / f"{name}.h5ad")
    paths = [str(tmp_path / "sc.h5ad"), str(tmp_path / "st.h5ad")]
    done = CliRunner().invoke(app, ["check", *paths, "--orthologs", "human:mouse", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["findings"]["shared_genes"] == 3
    refused = CliRunner().invoke(app, ["check", *paths, "--orthologs", "human:frog"])
    assert refused.exit_code != 0
    assert "--orthologs human:frog" in refused.output


def test_two_sides_of_one_species_are_advised_to_omit_orthologs() -> None:
    genes = ["Gad1", "Cux2", "Trp53"]
    told = cellweft.pair(cells(genes), cells(genes), orthologs="human:mouse").cautions
    assert any("from the same species. If they are, omit orthologs=" in one for one in told)
    assert not any("orthologs='human:mouse'" in one for one in told)


_WIDE = pd.DataFrame(
    {
        "Gene stable ID": ["ENSG1", "ENSG2", "ENSG3", "ENSG4"],
        "Gene name": ["GAD1", "TP53", "CUX2", "CUX2"],
        "Frog gene stable ID": ["ENSXETG1", "ENSXETG2", "", "ENSXETG4"],
        "Frog gene name": ["gad1.L", "tp53.S", "", "cux2.L"],
    }
)


@pytest.mark.parametrize("sep", [",", ";", "\t"])
@pytest.mark.parametrize("turned", [False, True])
def test_the_columns_of_both_species_are_identified(sep: str, turned: bool, tmp_path: Path) -> None:
    path = tmp_path / "biomart.csv"
    table = _WIDE[_WIDE.columns[::-1]] if turned else _WIDE
    # with row numbers in the first column, as R writes them too
    table.to_csv(path, sep=sep, encoding="utf-8-sig")
    pair = cellweft.pair(cells(HUMAN), cells(["tp53.S", "gad1.L", "cux2.L", "sst"]), orthologs=path)
    assert pair.shared_genes.tolist() == ["cux2.L", "gad1.L", "tp53.S"]
    assert pair.sc.input_names.tolist() == ["GAD1", "TP53", "CUX2"]
    said = "columns 4 and 2" if turned else "columns 3 and 5"
    assert any(f"{said} of the table of orthologs were used" in one for one in pair.cautions)


def test_a_table_of_another_tissue_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    _WIDE[["Gene name", "Frog gene name"]].to_csv(path, sep="\t", index=False)
    with pytest.raises(
        GeneError, match=r"orthologs=.*a column with genes of the tissue.*got 'gad1\.L'.*has 'Cux2'"
    ):
        cellweft.pair(cells(HUMAN), cells(MOUSE), orthologs=path)
    with pytest.raises(GeneError, match="genes of the tissue"):
        # genes of one species must not match by ignoring case if the table does not contain them
        cellweft.pair(cells(HUMAN), cells(["Gad1", "Tp53"]), orthologs=path)


def test_genes_of_the_reference_are_found_by_alternative_names() -> None:
    plain = cellweft.pair(cells(HUMAN), cells(MOUSE), orthologs="human:mouse")
    prefixed = cellweft.pair(cells([f"GRCh38_{one}" for one in HUMAN]), cells(MOUSE), orthologs="human:mouse")
    assert prefixed.shared_genes.tolist() == plain.shared_genes.tolist()
    numbered = cells([f"g{one:05}" for one in range(len(HUMAN))])
    numbered.var["feature_name"] = pd.Categorical(HUMAN)
    found = cellweft.pair(numbered, cells(MOUSE), orthologs="human:mouse")
    assert found.shared_genes.tolist() == plain.shared_genes.tolist()
    assert any("orthologs are looked up by var['feature_name']" in one for one in found.cautions)
