"""The setting that names what a gene graph is made of."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import SettingError
from cellweft.nn.config import StImputeSettings

KINDS = ["embedding", "expression", "gene_sets", "edges"]
ALL = ["embedding", "gene_sets", "edges"]


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ([], ["expression"]),
        (["embedding"], ["embedding"]),
        (["edges", "embedding"], ["embedding", "edges"]),
        (ALL, ALL),
    ],
)
def test_auto_is_the_union_of_what_is_given(given_: list[str], expected: list[str]) -> None:
    assert list(StImputeSettings().graph_shares(given_).items()) == [(one, 1.0) for one in expected]


def test_none_is_none_whatever_is_given() -> None:
    assert StImputeSettings(graph="none").graph_shares(ALL) == {}


@settings(max_examples=30, deadline=None)
@given(
    shares=st.dictionaries(
        st.sampled_from(KINDS), st.none() | st.integers(1, 80).map(lambda one: one / 8), min_size=1
    )
)
def test_what_is_written_is_read(shares: dict[str, float | None]) -> None:
    text = "+".join(name if share is None else f"{name}:{share}" for name, share in shares.items())
    expected = {name: 1.0 if share is None else share for name, share in shares.items()}
    assert StImputeSettings(graph=text).graph_shares(ALL) == expected


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("string", r"graph: expected one of 'embedding', .*got 'string'"),
        ("edgs", r"Did you mean 'edges'"),
        ("embedding+", r"graph: expected one of .*got ''"),
        ("", r"graph: expected one of"),
        (None, r"graph: expected one of .*got 'None'"),
        ("embedding+embedding", r"graph: expected relations joined by \+, each once"),
        ("embedding:0", r"or with a share above 0"),
        ("embedding:-1", r"or with a share above 0"),
        ("embedding:nan", r"or with a share above 0"),
        ("embedding:inf", r"or with a share above 0"),
        ("embedding:", r"or with a share above 0"),
        ("embedding:much", r"or with a share above 0"),
        ("auto+edges", r"'auto' and 'none' stand alone"),
        ("none+edges", r"'auto' and 'none' stand alone"),
        ("none:2", r"'auto' and 'none' stand alone"),
    ],
)
def test_another_form_is_refused(graph: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        StImputeSettings(graph=graph)


@pytest.mark.parametrize(
    ("graph", "lacking", "what"),
    [
        ("embedding", "embedding", "an embedding table"),
        ("expression+gene_sets", "gene_sets", "gene sets"),
        ("edges:2+expression", "edges", "a list of edges"),
    ],
)
def test_what_is_not_given_is_named(graph: str, lacking: str, what: str) -> None:
    others = [name for name in ALL if name != lacking]
    with pytest.raises(SettingError, match=rf"graph='.*': expected {what}, got none\. Pass {lacking}=, or"):
        StImputeSettings(graph=graph).graph_shares(others)


@pytest.mark.parametrize("graph", ["gene_sets", "embedding+edges"])
def test_sets_and_edges_have_no_distance(graph: str) -> None:
    with pytest.raises(SettingError, match=r"measure: expected 'similarity' in a graph of .*no distance"):
        StImputeSettings(graph=graph, measure="distance")
    automatic = StImputeSettings(measure="distance")
    assert automatic.graph_shares(["embedding"]) == {"embedding": 1.0}
    with pytest.raises(SettingError, match=r"measure: .*of gene_sets and edges, which have no distance"):
        automatic.graph_shares(["gene_sets", "edges"])
