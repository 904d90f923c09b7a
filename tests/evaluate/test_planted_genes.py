"""Copies of held-out genes elsewhere in the data: they change no score, and pure noise scores nothing."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cellweft.data._pair import pair
from cellweft.data.synthetic.tissue import simulate_tissue
from cellweft.evaluate.imputation import evaluate_imputation, protocol_text
from cellweft.impute.imputer import Imputer

QUICK = {"steps": 8, "fold_steps": 6, "level_steps": 6, "level_hidden": 6}
SMALL = "k=8+hidden=8+epochs=1+rounds=1"
UNMOVED = 0.002  # largest change of a gene's score if a copy is planted on one side
Sides = tuple[ad.AnnData, ad.AnnData]


@pytest.fixture(scope="module")
def sides() -> Sides:
    tissue = simulate_tissue(n_spatial=60, n_reference=60, n_genes=16, n_panel=12, seed=2)
    return tissue.sc, tissue.st


def with_gene(side: ad.AnnData, values: np.ndarray, name: str) -> ad.AnnData:
    """Return the data with one more gene."""
    more = ad.AnnData(
        sp.csr_matrix(values.reshape(-1, 1), dtype=np.float32),
        obs=side.obs[[]],
        var=pd.DataFrame(index=[name]),
    )
    return ad.concat([side, more], axis=1, merge="first", uns_merge="first")


def values_of(side: ad.AnnData, gene: str) -> np.ndarray:
    column = side[:, gene].X
    return np.asarray(column.toarray() if sp.issparse(column) else column).ravel()


def by_gene(sc: ad.AnnData, st: ad.AnnData, methods: list, **options: object) -> pd.DataFrame:
    table = evaluate_imputation(pair(sc, st), methods, folds=2, cluster=False, progress=False, **options)
    table = table[table.level == "gene"]
    return table.pivot_table(index=["item", "metric"], columns="method", values="value")


def abundant(st: ad.AnnData, sc: ad.AnnData) -> str:
    """Return the panel gene with most counts, because its copy would have the largest effect."""
    shared = [gene for gene in st.var_names if gene in sc.var_names]
    return max(shared, key=lambda gene: values_of(st, gene).sum())


def in_tissue(sc: ad.AnnData, st: ad.AnnData, gene: str) -> Sides:
    return sc, with_gene(st, values_of(st, gene), "Copy")


def in_reference(sc: ad.AnnData, st: ad.AnnData, gene: str) -> Sides:
    return with_gene(sc, values_of(sc, gene), "Copy"), st


def twin_in_tissue(sc: ad.AnnData, st: ad.AnnData, gene: str) -> Sides:
    return sc, with_gene(st, values_of(st, gene), gene.swapcase())


def twin_in_reference(sc: ad.AnnData, st: ad.AnnData, gene: str) -> Sides:
    return with_gene(sc, values_of(sc, gene), gene.swapcase()), st


def beside_the_matrix(sc: ad.AnnData, st: ad.AnnData, gene: str) -> Sides:
    """Add the gene on both sides to obs (as a common name of totals), obsm (as an embedding) and layers."""
    made = []
    for side in (sc, st):
        planted, values = side.copy(), values_of(side, gene)
        planted.obs["Copy"] = planted.obs["n_counts"] = values
        planted.obsm["X_pca"] = np.column_stack([values, values])
        planted.layers["counts"] = sp.csr_matrix(np.tile(values[:, None], (1, side.n_vars)))
        made.append(planted)
    return made[0], made[1]


def of_all_methods(sc: ad.AnnData, st: ad.AnnData) -> pd.DataFrame:
    """Return scores of every kind of method, and the reliability that auto gives."""
    methods = ["knn:k=5", "attention", Imputer(settings=QUICK)]
    first = by_gene(sc, st, methods, reliability=True)
    return first.join(by_gene(sc, st, [f"stimpute:{SMALL}"]))


@pytest.fixture(scope="module")
def unplanted(sides: Sides) -> pd.DataFrame:
    return of_all_methods(*sides)


@pytest.mark.slow
@pytest.mark.parametrize(
    "plant", [in_tissue, in_reference, twin_in_tissue, twin_in_reference, beside_the_matrix]
)
def test_a_copy_on_one_side_changes_no_score(
    sides: Sides, unplanted: pd.DataFrame, plant: Callable[..., Sides]
) -> None:
    after = of_all_methods(*plant(*sides, abundant(sides[1], sides[0])))
    assert unplanted.index.equals(after.index)  # no additional gene is scored
    assert float((after - unplanted).abs().max(axis=None)) <= UNMOVED


@pytest.mark.parametrize("also_in_reference", [False, True])
@pytest.mark.parametrize("as_object", [False, True])
def test_a_copy_in_gene_relations_changes_no_score(
    sides: Sides, also_in_reference: bool, as_object: bool
) -> None:
    sc, st = sides
    gene, genes = abundant(st, sc), [str(one) for one in st.var_names]
    vectors = pd.DataFrame(np.random.default_rng(0).normal(size=(len(genes), 4)), index=genes)
    sets = {"one": [gene, *genes[1:5]], "two": genes[3:9], "three": genes[7:]}
    edges = pd.DataFrame([[genes[0], genes[1]], [genes[2], gene], [genes[4], genes[5]]])
    plain = {"embedding": vectors, "gene_sets": sets, "edges": edges}
    planted = {
        "embedding": pd.concat([vectors, vectors.loc[[gene]].set_axis(["Copy"])]),
        "gene_sets": {name: [*one, "Copy"] if gene in one else one for name, one in sets.items()},
        "edges": pd.concat([edges, pd.DataFrame([["Copy", gene]])]),
    }
    after_sides = in_reference(sc, st, gene) if also_in_reference else sides
    if as_object:
        settings = {"graph": "embedding+gene_sets+edges", "k": 8, "hidden": 8, "epochs": 1, "rounds": 1}
        before, after = (
            by_gene(*both, [Imputer(preset="stimpute", settings=settings, reliability=False, **network)])
            for both, network in ((sides, plain), (after_sides, planted))
        )
    else:
        method = [f"stimpute:graph=embedding+gene_sets+edges+{SMALL}"]
        before, after = by_gene(sc, st, method, **plain), by_gene(*after_sides, method, **planted)
    assert float((after - before).abs().max(axis=None)) <= UNMOVED


def test_a_copy_on_both_sides_counts_as_a_panel_gene(sides: Sides) -> None:
    gene = abundant(sides[1], sides[0])
    sc, st = (with_gene(side, values_of(side, gene), "Copy") for side in sides)
    assert any("same values in every cell of both inputs" in one for one in pair(sc, st).cautions)
    assert "Copy" in by_gene(sc, st, ["mean"]).index.get_level_values("item")


@pytest.fixture(scope="module")
def noisy() -> Sides:
    """Both sides with a gene of noise that makes up about 30% of all counts."""
    tissue = simulate_tissue(n_spatial=400, n_reference=400, n_genes=24, n_panel=24, seed=3)
    made = []
    for seed, side in enumerate((tissue.sc, tissue.st)):
        draw = np.random.default_rng(seed)
        total = np.asarray(side.X.sum(axis=1)).ravel()
        made.append(
            with_gene(side, draw.poisson(0.3 / 0.7 * total * draw.exponential(1.0, len(total))), "Noise")
        )
    return made[0], made[1]


@pytest.mark.parametrize("logarithms", [False, True])
def test_noise_cannot_be_read_from_the_totals(noisy: Sides, logarithms: bool) -> None:
    sc, st = noisy
    if logarithms:  # as in many files; the totals affect every value
        st = st.copy()
        total = np.asarray(st.X.sum(axis=1))
        st.X = sp.csr_matrix(np.log1p(np.asarray(st.X.todense()) / np.maximum(total, 1) * np.median(total)))
    found = {
        protocol: by_gene(sc, st, ["knn", "attention"], protocol=protocol).loc[("Noise", "pearson")]
        for protocol in ("cut", "published")
    }
    assert found["cut"].abs().max() < 0.12  # two standard errors of a correlation over 400 cells
    assert found["published"].min() > 0.15


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        (
            "cut",
            "Protocol cut: held-out genes are removed before any method sees the data, and cells are "
            "normalised by the",
        ),
        ("published", "Protocol published: cells are normalised by the whole panel, held-out genes included"),
    ],
)
def test_the_table_says_how_genes_were_held_out(sides: Sides, protocol: str, said: str) -> None:
    sc, st = sides
    st = st.copy()
    st.obs["size"] = 5.0
    one = pair(sc, st, st_size_factor="size")
    table = evaluate_imputation(one, ["mean"], cluster=False, progress=False, protocol=protocol)
    assert table.attrs["cellweft"]["parameters"]["protocol"] == protocol
    text = protocol_text(table.attrs["cellweft"])
    assert text.startswith(said)
    assert ("obs['size'] of the spatial data is not used." in text) == (protocol == "cut")


def test_the_published_protocol_is_unchanged(sides: Sides, tmp_path: Path) -> None:
    one = pair(*sides)
    kept, held = one.shared_genes[4:], one.shared_genes[:4]
    seen = []

    class Spy:
        def fit(self, pair: object) -> "Spy":
            seen.append(pair)
            return self

        def predict(self, genes: object, pair: object) -> np.ndarray:
            return np.ones((60, len(genes)))

    table = evaluate_imputation(one, [Spy()], by="fraction", keep=0.5, cluster=False, protocol="published")
    assert seen[0].st is one.st
    assert seen[0].sc is one.sc
    truth = one.st.dense(slice(None), one.st_shared)
    mse = table[(table.level == "gene") & (table.metric == "mse")].set_index("item")["value"]
    for place, gene in enumerate(one.shared_genes):
        if gene in mse:
            assert mse[gene] == pytest.approx(((truth[:, place] - 1) ** 2).mean(), rel=1e-5)
    assert len(kept) + len(held) == 12
