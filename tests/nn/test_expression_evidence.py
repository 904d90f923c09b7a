"""The likelihood of a cell's spot from expression alone, against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cellweft.nn.expression_evidence import SMOOTHING, ExpressionEvidence


@pytest.fixture
def values() -> tuple[torch.Tensor, torch.Tensor]:
    """Draw log1p values of 9 genes in 30 cells and 12 spots; the last row of each has no counts."""
    stream = np.random.default_rng(0)
    cells, spots = stream.poisson(0.8, (30, 9)), stream.poisson(3.0, (12, 9))
    spots[:, 0] = 1  # the smallest value of a spot is one count
    cells[-1], spots[-1] = 0, 0
    return torch.log1p(torch.from_numpy(cells).float()), torch.log1p(torch.from_numpy(spots).float())


def test_the_product_is_the_likelihood_of_the_counts(values: tuple[torch.Tensor, torch.Tensor]) -> None:
    cells, spots = values
    evidence = ExpressionEvidence.learn(cells, spots, counts=8.0)
    found = (evidence.queries(cells) @ evidence.keys(spots).T).numpy()
    counts, profiles = np.expm1(cells.double().numpy()), np.expm1(spots[:-1].double().numpy())
    background = np.mean([one / one.sum() for one in profiles], axis=0)
    mean_total = counts[:-1].sum(axis=1).mean()
    background += 1e-6
    smoothed = [(one + SMOOTHING * background) / (one.sum() + SMOOTHING) for one in profiles]
    level = np.mean(np.log(smoothed), axis=0)
    for cell, of_cell in enumerate(counts):
        for spot, of_spot in enumerate(smoothed):
            expected = 0.0
            for gene in range(9):
                share = of_cell[gene] / (of_cell.sum() + 0.1 * mean_total)
                expected += 8.0 * share * (np.log(of_spot[gene]) - level[gene])
            assert found[cell, spot] == pytest.approx(expected, abs=1e-4)
    assert not evidence.queries(cells[-1:]).any()


def test_a_cell_prefers_the_spot_with_its_genes() -> None:
    spots = torch.log1p(torch.eye(4) * 20 + 1)
    cells = torch.log1p(torch.eye(4) * 5)
    evidence = ExpressionEvidence.learn(cells, spots, counts=8.0)
    assert (evidence.queries(cells) @ evidence.keys(spots).T).argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_the_order_of_genes_does_not_matter(values: tuple[torch.Tensor, torch.Tensor]) -> None:
    cells, spots = values
    order = torch.from_numpy(np.random.default_rng(1).permutation(9))
    products = [
        evidence.queries(first) @ evidence.keys(second).T
        for first, second in ((cells, spots), (cells[:, order], spots[:, order]))
        for evidence in [ExpressionEvidence.learn(first, second, counts=5.0)]
    ]
    torch.testing.assert_close(*products, rtol=1e-4, atol=1e-4)


def test_gradients_reach_a_cell_without_counts(values: tuple[torch.Tensor, torch.Tensor]) -> None:
    evidence = ExpressionEvidence.learn(*values, counts=8.0)
    blank = torch.zeros(1, 9, requires_grad=True)
    (evidence.queries(blank) @ evidence.keys(values[1]).T).sum().backward()
    assert blank.grad is not None
    assert torch.isfinite(blank.grad).all()
