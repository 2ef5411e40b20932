"""Every solver reaches the optimum of an interior point method, and the lower bound is one (docs/theorems.md, X2)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stablenet.convex import Conic, Fista, GroupNorm, Hinge, Logistic, Newton, Program, Squared, gates, path, run
from stablenet.convex.datafits import Datafit
from stablenet.convex.products import Products
from stablenet.convex.solvers.conic import conic_solution
from tests.convex.instances import DATAFITS, data, instance

KINDS = [(False, 1, None), (False, 2, 0.7), (True, 1, 0.7), (True, 2, None)]


@pytest.mark.parametrize("name", DATAFITS)
@pytest.mark.parametrize(("relu", "outputs", "most"), KINDS)
def test_newton_reaches_clarabels_optimum(name: str, relu: bool, outputs: int, most: float | None) -> None:
    program = instance(DATAFITS[name], seed=3, outputs=outputs, relu=relu)
    program = replace(program, penalty=replace(program.penalty, most=most))
    optimum = run(program, Newton(1e-9))
    _, reference = conic_solution(program)
    assert optimum.objective == pytest.approx(reference, rel=1e-6, abs=1e-7)
    assert optimum.program_gap <= 1e-9 * optimum.objective
    assert optimum.certified is not relu and (optimum.gap is None) is relu
    if relu:
        s, i, c = torch.nonzero(program.lengths(optimum.variables)).T
        normals = torch.where(program.gates.patterns[i][:, :, None], program.X, -program.X)
        assert float((normals @ optimum.variables[s, i, c][..., None]).min()) > -1e-12


@pytest.mark.parametrize("name", ["squared", "logistic", "squared-hinge"])
@pytest.mark.parametrize("most", [None, 0.7])
def test_fista_reaches_newtons_optimum(name: str, most: float | None) -> None:
    program = instance(DATAFITS[name], seed=4, outputs=2, relu=False)
    program = replace(program, penalty=replace(program.penalty, most=most))
    fista, newton = run(program, Fista(1e-7)), run(program, Newton(1e-10))
    assert fista.relative_gap is not None and fista.relative_gap <= 1e-7
    assert fista.objective == pytest.approx(newton.objective, rel=2e-7)


def test_the_conic_solver_certifies_what_it_says() -> None:
    optimum = run(instance(Squared(), relu=True), Conic())
    assert optimum.program_gap < 1e-6 * optimum.objective


@pytest.mark.parametrize("name", DATAFITS)
@pytest.mark.parametrize(("relu", "most"), [(False, 0.5), (True, None)])
def test_no_residual_gives_more_than_the_optimum(name: str, relu: bool, most: float | None) -> None:
    program = instance(DATAFITS[name], seed=5, outputs=2, relu=relu)
    program = replace(program, penalty=replace(program.penalty, most=most))
    optimum = run(program, Newton(1e-10))
    g = torch.Generator().manual_seed(0)
    best = program.datafit.gradient(program.predict(optimum.variables), program.y)
    for size in (0.0, 1e-6, 1e-3, 0.1, 1.0, 10.0):
        R = best + size * torch.randn(best.shape, generator=g, dtype=best.dtype)
        assert program.lower_bound(R) <= optimum.objective


@pytest.mark.parametrize("name", DATAFITS)
def test_conjugates_and_dual_steps(name: str) -> None:
    """Fenchel's inequality, with equality at a gradient; a step's value is below f*, its slope the derivative of its point."""
    f: Datafit = DATAFITS[name]
    g = torch.Generator().manual_seed(1)
    Z, start = (torch.randn(40, 1, generator=g, dtype=torch.float64) for _ in range(2))
    y = torch.randn(40, 1, generator=g, dtype=torch.float64).sign()
    R = f.gradient(Z, y)
    assert float(f.conjugate_terms(R, y).sum()) == pytest.approx(float((R * Z).sum() - f.value(Z, y)), abs=1e-12)
    other = f.into_domain(R + 0.1 * torch.randn(R.shape, generator=g, dtype=R.dtype), y)
    assert float(f.conjugate_terms(other, y).sum()) >= float((other * Z).sum() - f.value(Z, y)) - 1e-12
    inside = 0.9 * R - 0.03 * f.weight * y
    step, ahead = (f.dual_step(inside + h, y, start, 0.7) for h in (0.0, 1e-7))
    torch.testing.assert_close((ahead.point - step.point) / 1e-7, step.slope, rtol=1e-4, atol=1e-5)
    assert float((ahead.value - step.value) / 1e-7) == pytest.approx(float(step.point.sum()), rel=1e-4, abs=1e-4)


def test_products_are_those_of_the_matrix() -> None:
    X, _ = data(0, 7, 3)
    patterns = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) > 0.5
    V, R = torch.randn(5, 2, 3, dtype=X.dtype), torch.randn(7, 2, dtype=X.dtype)
    for products in (Products.of(X, patterns), Products(X, patterns)):
        expected = sum(patterns[i][:, None] * X @ V[i].T for i in range(5))
        torch.testing.assert_close(products.forward(V), expected)
        torch.testing.assert_close((products.adjoint(R) * V).sum(), (R * expected).sum())


def test_a_path_is_warm_and_ends_where_a_cold_start_does() -> None:
    program = instance(Squared(), seed=6, relu=False)
    weights = [program.largest_weight * f for f in (1.0, 0.3, 0.1, 0.03)]
    optima = dict(path(program, weights, Newton(1e-9)))
    assert not bool(optima[weights[0]].variables.any())
    cold = run(program.with_weight(weights[-1]), Newton(1e-9))
    assert optima[weights[-1]].objective == pytest.approx(cold.objective, rel=1e-8)


def test_conjugate_gradients_do_what_the_factorization_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for relu, outputs in ((False, 1), (False, 2), (True, 2)):
        program = instance(Squared(), seed=7, relu=relu, outputs=outputs)
        expected = run(program, Newton(1e-9)).objective
        with monkeypatch.context() as patch:
            patch.setattr("stablenet.convex.solvers.newton.DIRECT", 0)
            assert run(program, Newton(1e-9)).objective == pytest.approx(expected, rel=2e-9)


def test_speed_of_the_gated_group_lasso() -> None:
    """n = 400, d = 30, 200 gates: certified to 1e-8 in few Newton steps; the seconds are a benchmark's."""
    X, y = data(0, 400, 30)
    program = Program(X, y, gates.sample(X, 200, generator=torch.Generator().manual_seed(0)), Squared(1 / 400), GroupNorm(1e-3))
    iterates: list[float] = []
    optimum = run(program, Newton(1e-8), progress=lambda i: iterates.append(i.objective))
    assert optimum.relative_gap is not None and optimum.relative_gap <= 1e-8 and len(iterates) <= 12


def test_refusals() -> None:
    program = instance(Squared(), relu=False)
    X, y, g = program.X, program.y, program.gates
    with pytest.raises(ValueError, match="as many rows"):
        replace(program, y=y[:-1])
    with pytest.raises(ValueError, match="NaN or infinity"):
        replace(program, X=X * torch.inf)
    with pytest.raises(ValueError, match="one type"):
        replace(program, X=X.float())
    with pytest.raises(ValueError, match="patterns of 12 data"):
        Program(X[:3], y[:3], g, Squared(), GroupNorm(1.0))
    with pytest.raises(ValueError, match="labels -1 and 1"):
        replace(program, datafit=Logistic())
    with pytest.raises(ValueError, match="beta > 0"):
        GroupNorm(0.0)
    with pytest.raises(ValueError, match="finite and positive"):
        GroupNorm(1.0, -1.0)
    with pytest.raises(ValueError, match="weight > 0"):
        Squared(0.0)
    with pytest.raises(ValueError, match="Fista needs a datafit with a Lipschitz gradient"):
        run(replace(program, datafit=Hinge(), y=y.sign()), Fista())
    with pytest.raises(ValueError, match="the start has shape"):
        run(program, Newton(), start=y)
