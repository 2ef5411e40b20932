"""Multiple kernels: a monotone way to the group lasso's optimum whose gap falls as 1/k (docs/theorems.md, X5)."""

from __future__ import annotations

import pytest
import torch

from stablenet.convex import GroupNorm, Hinge, Newton, Program, Reweighting, Squared, gates, run
from stablenet.convex.solvers.reweighting import masked_kernel
from tests.convex.instances import data, instance


def program(outputs: int = 1) -> Program:
    X, y = data(0, 30, 4, outputs)
    return Program(X, y, gates.sample(X, 25, generator=torch.Generator().manual_seed(1)), Squared(0.5), GroupNorm(0.4))


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_gap_falls_like_one_over_k(outputs: int) -> None:
    p, objectives = program(outputs), []
    optimum = run(p, Newton(1e-12))
    reached = run(p, Reweighting(1e-12, 1000), progress=lambda i: objectives.append(i.objective))
    gaps = torch.tensor(objectives, dtype=torch.float64) - optimum.objective
    assert bool((gaps.diff() <= 1e-12).all()) and float(gaps.min()) > -1e-10
    for k in (10, 100, len(gaps) - 1):
        assert float(gaps[k]) <= 2 * float(gaps[0]) / k
    assert reached.gap is not None and reached.gap >= float(gaps[-1]) - 1e-10
    polished = run(p, Newton(1e-10), start=reached.variables)
    assert polished.objective == pytest.approx(optimum.objective, rel=1e-10)


def test_the_kernel_objective_is_least_at_the_optimum() -> None:
    p = program()
    optimum = run(p, Newton(1e-11))
    ridge = p.penalty.weight / p.datafit.weight

    def value(eta: torch.Tensor) -> float:
        K = masked_kernel(p.X, p.gates.patterns, eta) + ridge * torch.eye(30, dtype=p.X.dtype)
        return p.penalty.weight / 2 * float((p.y * torch.linalg.solve(K, p.y)).sum() + eta.sum())

    best = p.lengths(optimum.variables)[0, :, 0]
    assert value(best) == pytest.approx(optimum.objective, rel=1e-9)
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        assert value(best + 0.1 * torch.rand(best.shape, generator=g, dtype=best.dtype)) >= optimum.objective


def test_refusals() -> None:
    with pytest.raises(ValueError, match="Reweighting needs the squared datafit"):
        run(instance(Hinge(), relu=False), Reweighting())
    with pytest.raises(ValueError, match="Reweighting needs a gated network"):
        run(instance(Squared(), relu=True), Reweighting())
    with pytest.raises(ValueError, match="as many positive weights"):
        run(program(), Reweighting(weights=torch.zeros(3)))
