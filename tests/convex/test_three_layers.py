"""Three layers: the optimum of the whole cone program, exported networks, and their order (docs/theorems.md, X6)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.sparse import block_diag

import stablenet
from stablenet.convex import Columns, GroupNorm, Program, Squared, gates, run
from stablenet.convex.deep import DeepProgram, price
from stablenet.convex.solvers.conic import group_lasso
from stablenet.convex.solvers.layered import solve_three_layers
from tests.convex.instances import data


def deep(seed: int, n: int = 4, d: int = 2, outputs: int = 1, most: float | None = None) -> DeepProgram:
    X, y = data(seed, n, d, outputs)
    return DeepProgram(X, y, gates.enumerate(X), Squared(), GroupNorm(0.05, most))


def reference(program: DeepProgram) -> float:
    """The cone program as it stands in the paper: every pair of cells and signs, every pattern of the second layer."""
    X = program.X.numpy()
    n, d = X.shape
    D = program.gates.patterns.numpy()
    columns, cones = [], []
    patterns = [np.array(p) for p in itertools.product((0.0, 1.0), repeat=n)]
    for i, j in itertools.product(range(len(D)), repeat=2):
        for signs in ((1, 1), (1, -1)):
            both = np.hstack([s * D[k][:, None] * X for s, k in zip(signs, (i, j), strict=True)])
            first = block_diag([np.where(D[k][:, None], X, -X) for k in (i, j)]).toarray()
            for on in patterns:
                columns.append(on[:, None] * both)
                cones.append(np.vstack([first, (2 * on - 1)[:, None] * both]))
    A = np.hstack(columns)
    return group_lasso(
        program.datafit, program.penalty, program.y, np.hstack([A, -A]), block_diag(cones * 2, format="csr"), d
    ).value


@pytest.mark.parametrize("seed", [0, 1])
def test_column_generation_reaches_the_whole_cone_program(seed: int) -> None:
    program = deep(seed, n=3)
    optimum = solve_three_layers(program)
    assert optimum.objective == pytest.approx(reference(program), rel=1e-6)
    assert optimum.gap is not None and optimum.gap <= 1e-6 * optimum.objective


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_random_instances(seed: int) -> None:
    program = deep(seed, n=3 + seed % 2)
    assert solve_three_layers(program).objective == pytest.approx(reference(program), rel=1e-6)


def test_three_layers_lie_below_two_and_gradient_descent_above() -> None:
    """.24819 against .32394, on five points of the plane."""
    program = deep(6, n=5)
    optimum = solve_three_layers(program)
    two = run(Program(program.X, program.y, program.gates, Squared(), program.penalty, cones=True), Columns(1e-9))
    assert optimum.lower_bound is not None and two.lower_bound is not None
    assert optimum.objective < two.lower_bound - 1e-3
    value = float((optimum.network(program.X).detach() - program.y).square().sum()) / 2
    assert value + 0.05 * stablenet.convex.networks.weight_decay(optimum.network) == pytest.approx(optimum.objective, abs=1e-8)
    assert optimum.network.depth == 3
    norms = optimum.network.hidden.detach().flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    g = torch.Generator().manual_seed(0)
    W = torch.randn(10, 6, 2, 2, generator=g, dtype=torch.float64).requires_grad_()
    a, c = (torch.randn(10, 6, k, generator=g, dtype=torch.float64).requires_grad_() for k in (2, 1))
    optimizer = torch.optim.Adam([W, a, c], lr=0.02)
    for _ in range(400):
        first = torch.relu(torch.einsum("nd,rkjd->rnkj", program.X, W / W.flatten(2).norm(dim=2)[..., None, None]))
        Z = torch.einsum("rnk,rk->rn", torch.relu((first * a[:, None]).sum(3)), c[..., 0])
        squares = a.square().sum((1, 2)) + c.square().sum((1, 2))
        losses = (Z - program.y[:, 0]).square().sum(1) / 2 + 0.025 * squares
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
    assert optimum.lower_bound <= float(losses.min())


def test_a_bound_of_the_sum_holds_after_export() -> None:
    optimum = solve_three_layers(deep(2, n=4, outputs=2, most=0.5))
    assert stablenet.certify(optimum.network).lipschitz <= 0.5
    assert optimum.gap is not None and optimum.gap <= 1e-6 * optimum.objective


def test_prices_are_bounds() -> None:
    g = torch.Generator().manual_seed(0)
    for _ in range(5):
        B, c = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((5, 2, 3), (2, 3)))
        lower, upper = price(B, c, enough=0.0)
        assert 0 <= lower <= upper
        lower, upper = price(B, c, enough=(lower + upper) / 2, steps=400)
        U = torch.randn(20_000, 2, 3, generator=g, dtype=torch.float64)
        inside = ((U.flatten(1) @ B.flatten(1).T) >= 0).all(1)
        values = (U[inside] * c).sum((1, 2)) / U[inside].norm(dim=2).sum(1)
        assert float(values.max()) <= upper


def test_refusals() -> None:
    X, y = data(0, 12, 3)
    program = DeepProgram(X, y, gates.enumerate(X), Squared(), GroupNorm(0.1))
    with pytest.raises(ValueError, match="more than most"):
        solve_three_layers(program)
    with pytest.raises(ValueError, match="at least 2 neurons"):
        DeepProgram(X, y, program.gates, Squared(), GroupNorm(0.1), inner=1).columns  # noqa: B018
