"""Names and objects are resolved to methods that can be fitted."""

import dataclasses
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cellweft
from cellweft._errors import InputError, NotFittedError, SettingError
from cellweft.data._pair import Pair, pair
from cellweft.data.synthetic.tissue import simulate_tissue
from cellweft.evaluate.imputation_baselines import attention, knn
from cellweft.evaluate.methods import BaselineMethod, Predictor, copier, parse_method, resolve_methods
from cellweft.genes.embeddings import read_embedding
from cellweft.genes.gene_sets import read_gene_sets
from cellweft.genes.interactions import read_edges
from cellweft.genes.network import Network


@pytest.fixture(scope="module")
def tissue() -> Pair:
    simulated = simulate_tissue(n_spatial=40, n_reference=60, n_genes=20, n_panel=10)
    return pair(simulated.sc, simulated.st)


@dataclass(frozen=True)
class Frozen:
    seed: int = 0
    preset: str = "auto"
    settings: dict = field(default_factory=dict)

    def fit(self, pair: Pair) -> "Frozen":
        return self

    def predict(self, genes: np.ndarray, pair: Pair) -> np.ndarray:
        return np.full((pair.st.n_cells, len(genes)), self.seed, dtype=np.float32)


class Plain:
    def __init__(self) -> None:
        self.seed = 7

    def fit(self, pair: Pair) -> "Plain":
        self.fitted = True
        return self

    predict = Frozen.predict


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("auto", ("auto", {})),
        ("knn:k=20", ("knn", {"k": 20})),
        ("attention:temperature=0.05+space=log", ("attention", {"temperature": 0.05, "space": "log"})),
        (
            "stimpute:a=True+b=false+c=None+d=none",
            ("stimpute", {"a": True, "b": False, "c": None, "d": "none"}),
        ),
        ("stimpute:lr=1e-3+k=-1", ("stimpute", {"lr": 0.001, "k": -1})),
        ("auto:graph=edges:2+expression+k=3", ("auto", {"graph": "edges:2+expression", "k": 3})),
        ("auto:k=3+graph=edges+expression", ("auto", {"k": 3, "graph": "edges+expression"})),
    ],
)
def test_names_with_settings_are_parsed(spec: str, expected: tuple[str, dict]) -> None:
    name, found = parse_method(spec)
    assert (name, found) == expected
    assert [type(one) for one in found.values()] == [type(one) for one in expected[1].values()]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    values=st.dictionaries(
        st.from_regex(r"[a-z_]{1,9}", fullmatch=True),
        st.one_of(st.integers(), st.booleans(), st.none(), st.integers(1, 99).map(lambda one: one / 8)),
        min_size=1,
    )
)
def test_parse_is_the_inverse_of_writing(values: dict) -> None:
    spec = "stimpute:" + "+".join(f"{key}={value}" for key, value in values.items())
    assert parse_method(spec) == ("stimpute", values)


@pytest.mark.parametrize(
    "spec", ["knn:", "knn:k", "knn:k=", "knn:=3", "knn:k=1+", "knn:k=1++k=2", "knn:k=1+k=2"]
)
def test_settings_of_another_form(spec: str) -> None:
    with pytest.raises(SettingError, match=r"methods: expected settings as name:key=value\+key=value"):
        parse_method(spec)


@pytest.mark.parametrize("spec", ["atention", "atention:space=log"])
def test_unknown_method(spec: str) -> None:
    with pytest.raises(SettingError, match=r"methods: expected one of .* got 'atention'.*'attention'"):
        resolve_methods([spec])


def test_unknown_setting_of_a_baseline() -> None:
    with pytest.raises(SettingError, match=r"knn:spce: expected a setting of 'knn', got 'spce'.*'space'"):
        resolve_methods(["knn:spce=log"])
    with pytest.raises(
        SettingError, match=r"mean:k: expected a setting of 'mean', got 'k'\. It has no settings"
    ):
        resolve_methods(["mean:k=3"])
    with pytest.raises(SettingError, match="knn:seed"):
        resolve_methods(["knn:seed=3"])


@pytest.mark.parametrize("methods", [[], "knn"])
def test_a_list_of_methods_is_required(methods: list | str) -> None:
    with pytest.raises(SettingError, match="methods: expected a list of methods"):
        resolve_methods(methods)


def test_a_duplicate_name_is_refused() -> None:
    with pytest.raises(SettingError, match="methods: expected unique names, got 'knn' twice"):
        resolve_methods(["knn", "mean", "knn"])


def test_baselines_by_name_are_the_functions(tissue: Pair) -> None:
    genes = np.arange(20)
    found = resolve_methods(["knn:k=4+weights=uniform", "attention"])
    assert [one.label for one in found] == ["knn:k=4+weights=uniform", "attention"]
    first, second = (one.make(0).fit(tissue).predict(tissue.sc.genes[genes], tissue) for one in found)
    np.testing.assert_array_equal(first, knn(tissue, tissue, genes, k=4, weights="uniform"))
    np.testing.assert_array_equal(second, attention(tissue, tissue, genes))


class FakeImputer(Frozen):
    """Records the arguments that an Imputer would get."""

    built: ClassVar[list[dict]] = []

    def __init__(self, **given: object) -> None:
        self.built.append(given)


def test_presets_become_imputers(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("cellweft.impute.imputer")
    module.Imputer = FakeImputer
    monkeypatch.setitem(sys.modules, "cellweft.impute.imputer", module)
    table = read_embedding(pd.DataFrame(np.eye(2), index=["a", "b"]))
    specs = ["auto", "stimpute:graph=none+alpha=0.5"]
    sets, edges = read_gene_sets({"set": ["a", "b"]}), read_edges(pd.DataFrame([["a", "b"]]))
    network = Network(embedding=table, gene_sets=sets, edges=edges)
    found = resolve_methods(specs, network=network, reliability=True, device="cpu")
    assert [one.label for one in found] == specs
    # one Imputer per name, so that settings that it refuses raise immediately
    assert len(FakeImputer.built) == 2
    for method, preset, given_settings in zip(
        found, ["auto", "stimpute"], [{}, {"graph": "none", "alpha": 0.5}], strict=True
    ):
        method.make(9)
        has_graph = preset == "stimpute"
        assert FakeImputer.built[-1] == {
            "preset": preset,
            "settings": given_settings,
            "embedding": table if has_graph else None,
            "gene_sets": sets if has_graph else None,
            "edges": edges if has_graph else None,
            "reliability": True,
            "seed": 9,
            "device": "cpu",
        }


def test_fitted_attributes_of_an_object_are_not_copied(tissue: Pair) -> None:
    class Learned:
        def __deepcopy__(self, _: dict) -> None:
            raise AssertionError("a fitted model was copied to be thrown away")

    for given_one in (BaselineMethod(name="mean"), cellweft.Imputer(), cellweft.Placer()):
        given_one.train_ = given_one.fitted_ = given_one.model_ = given_one.pair_ = Learned()
        fresh = copier(given_one)(3)
        assert fresh.seed == 3
        assert not [value for value in vars(fresh).values() if isinstance(value, Learned)]


def test_baseline_before_fit(tissue: Pair) -> None:
    with pytest.raises(NotFittedError, match="mean: expected a fitted method"):
        BaselineMethod(name="mean").predict(tissue.sc.genes[:2], tissue)


@pytest.mark.parametrize("given_one", [Frozen(), Plain()], ids=["frozen dataclass", "plain object"])
def test_objects_are_copied_and_given_the_seed(given_one: Predictor, tissue: Pair) -> None:
    (method,) = resolve_methods([given_one])
    fresh = method.make(5)
    assert fresh is not given_one
    assert fresh.fit(tissue).predict(tissue.sc.genes[:2], tissue)[0, 0] == 5
    assert given_one.seed == (0 if isinstance(given_one, Frozen) else 7)
    assert not hasattr(given_one, "fitted")


def test_labels_of_objects() -> None:
    found = resolve_methods(
        [Frozen(), "mean", Frozen(), Plain(), dataclasses.replace(Frozen(), settings={"rounds": 1, "k": 2})]
    )
    assert [one.label for one in found] == ["auto", "mean", "auto (2)", "Plain", "auto:rounds=1+k=2"]


@pytest.mark.parametrize(("wrong", "got"), [(3, "a int"), (Frozen, "the class Frozen"), (None, "a NoneType")])
def test_objects_that_are_not_methods(wrong: object, got: str) -> None:
    with pytest.raises(
        InputError, match=rf"methods: expected names, or objects with fit\(pair\).* got {got}"
    ):
        resolve_methods([wrong])
