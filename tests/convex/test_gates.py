"""All cells of an arrangement, exactly (docs/theorems.md, X1), and samples of them."""

from __future__ import annotations

import itertools

import pytest
import torch

from stablenet.convex import gates
from tests.convex.instances import data


@pytest.mark.parametrize(("n", "d"), [(8, 3), (5, 2), (20, 3), (12, 4), (9, 6), (3, 5), (4, 1), (1, 1)])
def test_the_count_in_general_position_is_zaslavskys(n: int, d: int) -> None:
    X, _ = data(n + d, n, d)
    found = gates.enumerate(X)
    assert found.complete and len(found) == gates.count(n, d)
    assert len(torch.unique(found.patterns, dim=0)) == len(found)
    assert found.vectors is not None and torch.equal(found.vectors @ X.T >= 0, found.patterns)


def test_cells_of_data_that_are_far_from_general_position() -> None:
    X = torch.tensor(list(itertools.product([-1.0, 0.0, 1.0], repeat=3)), dtype=torch.float64)
    found = gates.enumerate(X)  # the 13 planes of the cube's symmetries: 9 mirrors and 4 more
    drawn = gates.sample(X, 100_000, generator=torch.Generator().manual_seed(0))
    assert len(found) == 96 and bool(found.patterns[:, 13].all())
    assert {tuple(p) for p in drawn.patterns.tolist()} == {tuple(p) for p in found.patterns.tolist()}


def test_parallel_zero_and_dependent_rows() -> None:
    X = torch.tensor([[1.0, 0, 0], [2, 0, 0], [-3, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=torch.float64)
    found = gates.enumerate(X)
    assert len(found) == 6 and bool(found.patterns[:, 5].all())
    assert torch.equal(found.patterns[:, 0], found.patterns[:, 1])
    assert torch.equal(found.patterns[:, 0], ~found.patterns[:, 2])


def test_a_sign_that_rounding_would_turn() -> None:
    """Three lines through one point of the projective plane, and the third turned by one unit of the last place."""
    X = torch.tensor([[1.0, 0, 1], [0, 1, 1], [1, 1, 2]], dtype=torch.float64)
    assert len(gates.enumerate(X)) == 6
    X[2, 2] = torch.nextafter(X[2, 2], torch.tensor(3.0, dtype=torch.float64))
    assert len(gates.enumerate(X)) == 8


def test_samples_are_patterns_of_their_vectors() -> None:
    X, _ = data(0, 30, 2)
    drawn = gates.sample(X, 500, generator=torch.Generator().manual_seed(1))
    assert not drawn.complete and drawn.vectors is not None and len(drawn) <= 60
    assert torch.equal(drawn.vectors @ X.T >= 0, drawn.patterns) and len(drawn.patterns.unique(dim=0)) == len(drawn)


def test_refusals() -> None:
    X, _ = data(0, 60, 8)
    with pytest.raises(ValueError, match=r"up to \d+ cells.*gates.sample"):
        gates.enumerate(X)
    with pytest.raises(ValueError, match="every row of X is zero"):
        gates.enumerate(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="NaN"):
        gates.sample(X * torch.nan, 3)
    with pytest.raises(ValueError, match="at least 1"):
        gates.sample(X, 0)
    with pytest.raises(ValueError, match="at least 1"):
        gates.count(0, 3)
    with pytest.raises(ValueError, match="at least one gate"):
        gates.Gates(torch.zeros(0, 3, dtype=torch.bool), None, False)
