"""All cells priced: the gap is one over all two-layer ReLU networks, and networks reach it (docs/theorems.md, X2 and X3)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stablenet.convex import Columns, GroupNorm, Newton, Program, Squared, gates, networks, run
from stablenet.convex.solvers.conic import conic_solution
from tests.convex.instances import DATAFITS, data


def all_cells(seed: int, n: int = 8, d: int = 3, outputs: int = 1, weight: float = 0.1) -> Program:
    X, y = data(seed, n, d, outputs)
    return Program(X, y, gates.enumerate(X), Squared(), GroupNorm(weight), cones=True)


def test_few_cells_certify_all_of_them() -> None:
    """n = 8, d = 3: 58 cells, a gap below 1e-10, and no more than half of the cells at work."""
    program = all_cells(0)
    optimum = run(program, Columns(1e-12, at_once=4))
    assert len(program.gates) == 58 and optimum.certified
    assert optimum.gap is not None and optimum.gap < 1e-10
    assert 0 < int((program.lengths(optimum.variables) > 0).any(0).sum()) < 15


@pytest.mark.parametrize("seed", range(6))
def test_columns_reach_the_optimum_over_all_cells(seed: int) -> None:
    program = all_cells(seed, n=6, d=2, outputs=1 + seed % 2)
    optimum = run(program, Columns(1e-10))
    assert optimum.objective == pytest.approx(conic_solution(program)[1], rel=1e-6, abs=1e-7)
    assert optimum.relative_gap is not None and optimum.relative_gap <= 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_fifty_random_instances(seed: int) -> None:
    program = all_cells(seed, n=5 + seed % 3, d=2 + seed % 2, outputs=1 + seed % 2)
    optimum = run(program, Columns(1e-10))
    assert optimum.objective == pytest.approx(conic_solution(program)[1], rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", DATAFITS)
def test_bounds_of_the_sum_and_other_datafits(name: str) -> None:
    X, y = data(11, 7, 2)
    datafit = DATAFITS[name]
    y = y.sign() if datafit.labels else y
    program = Program(X, y, gates.enumerate(X), datafit, GroupNorm(0.01, 0.6), cones=True)
    few, every = run(program, Columns(1e-9, at_once=2)), run(program, Newton(1e-9))
    assert few.objective == pytest.approx(every.objective, rel=2e-9)
    assert float(program.lengths(few.variables).sum()) <= 0.6 * (1 + 1e-12)


def test_a_sample_is_not_certified() -> None:
    program = all_cells(1)
    part = replace(program, gates=gates.sample(program.X, 9, generator=torch.Generator().manual_seed(0)))
    found, optimum = run(part, Columns()), run(program, Columns())
    assert found.gap is None and found.lower_bound is None and not found.certified and found.program_gap < 1e-7
    assert found.objective >= optimum.objective - 1e-9


def test_gradient_descent_never_goes_below() -> None:
    """Adam on both layers with weight decay, ten neurons, ten starts."""
    program = all_cells(2, n=6, d=2)
    optimum = run(program, Columns(1e-10))
    g = torch.Generator().manual_seed(0)
    starts = 10
    W = torch.randn(starts, 10, 2, generator=g, dtype=torch.float64).requires_grad_()
    c = torch.randn(starts, 10, 1, generator=g, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([W, c], lr=0.03)
    for _ in range(600):
        Z = torch.relu(program.X @ W.transpose(1, 2)) @ c
        losses = (Z - program.y).square().sum((1, 2)) / 2 + 0.05 * (W.square().sum((1, 2)) + c.square().sum((1, 2)))
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
    assert optimum.lower_bound is not None
    assert float(losses.min()) >= optimum.lower_bound
    assert float(losses.min()) <= 1.05 * optimum.objective


def test_exported_networks_reach_the_convex_value() -> None:
    for seed, outputs in ((3, 1), (4, 2)):
        program = all_cells(seed, n=6, d=2, outputs=outputs)
        optimum = run(program, Columns(1e-10))
        network = networks.export(program, optimum.variables)
        assert isinstance(network, networks.ConvexNetwork) and network.depth == 2
        value = program.datafit.value(network(program.X), program.y).item() + 0.1 * networks.weight_decay(network)
        assert value == pytest.approx(optimum.objective, abs=1e-8)
        squares = sum(p.square().sum().item() for p in network.parameters()) / 2
        assert squares == pytest.approx(networks.weight_decay(network), rel=1e-10)
