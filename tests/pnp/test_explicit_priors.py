"""Potentials through their proximal operators: PGD and HQS descend, ADMM where the data are convex enough, errors carried."""

from __future__ import annotations

from fractions import Fraction

import deepinv
import pytest
import torch

import pnp
from pnp import explicit
from pnp.guarantees import ARITHMETIC, EnergyDescends, proximal_descent, weak_douglas_rachford
from pnp.guarantees.descent import BOUNDED
from stablenet.networks import Symmetrized
from stablenet.potential import Potential
from tests.inventory.algorithms import ALGORITHMS
from tests.inventory.energies import POTENTIALS, Bent
from tests.inventory.physics import PHYSICS

LEVEL = 0.05


def solved(algorithm: object, problem: pnp.Problem, module: Bent, tolerance: float = 1e-5, **more: object) -> pnp.Solution:
    stop = pnp.Stop(tolerance, 8000)
    return pnp.solve(algorithm, problem, pnp.prior(module), stop=stop, denoiser_noise_level=LEVEL, **more)


def same_energy(solution: pnp.Solution, module: Bent, problem: pnp.Problem) -> torch.Tensor:
    """The gradient of step_size f + R at the estimate."""
    x = solution.estimate
    return solution.algorithm.step_size * problem.gradient(x) + module.gradient(x, LEVEL)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_convex_potential_joins_the_first_rung(algorithm: str) -> None:
    problem, module = PHYSICS["blur_fft"].pose(), Bent()
    s = solved(ALGORITHMS[algorithm], problem, module, scheme=pnp.Anderson())
    assert s.converged and s.guarantee.averagedness is not None and s.energies is None
    if algorithm in ("pgd", "admm", "drs"):
        assert float(same_energy(s, module, problem).norm()) < 1e-2


@pytest.mark.parametrize("scheme", [pnp.Plain(), pnp.Anderson()], ids=repr)
@pytest.mark.parametrize("algorithm", [pnp.PGD(), pnp.HQS()], ids=["pgd", "hqs"])
@pytest.mark.parametrize("potential", ["weakly", "slightly"])
def test_proximal_steps_descend_on_a_weakly_convex_energy(potential: str, algorithm: object, scheme: object) -> None:
    problem, module = PHYSICS["blur_valid"].pose(), POTENTIALS[potential]()
    s = solved(algorithm, problem, module, scheme=scheme)
    assert s.converged and isinstance(s.guarantee.watch, EnergyDescends)
    assert s.guarantee.assumptions == (BOUNDED, ARITHMETIC)  # the blur says nothing of the border
    slack = 1e-6 * float(s.energies[0])  # the proximal operators are known up to summable errors
    assert bool((s.energies.diff(dim=0) <= slack).all())
    if isinstance(algorithm, pnp.PGD):
        assert float(same_energy(s, module, problem).norm()) <= 1e-3


def test_the_window_of_proximal_descent() -> None:
    prior = pnp.prior(Bent(mu=1.0, rho=0.1))  # M = 0.8
    problem = PHYSICS["blur_fft"].pose()
    end = 1.2 / problem.smoothness.value
    assert pnp.plan(pnp.PGD(), problem, prior).algorithm.step_size == pytest.approx(0.95 * end)
    with pytest.raises(pnp.Refused, match=r"must lie below 2 - M, 1.19999"):
        pnp.plan(pnp.PGD(1.01 * end), problem, prior)
    assert pnp.plan(pnp.HQS(50.0), problem, prior).guarantee.averagedness is None  # any step is covered
    with pytest.raises(pnp.Refused, match="M <= 2.40, and below 1 is needed. Take pnp.Descent"):
        pnp.plan(pnp.PGD(), problem, pnp.prior(POTENTIALS["beyond"]()))
    for algorithm in (pnp.RED(), pnp.CondatVu()):
        with pytest.raises(pnp.Refused):
            pnp.plan(algorithm, problem, prior)


def test_proximal_descent_contracts_where_the_data_are_convex_enough() -> None:
    """Denoising, so that mu = 1: the limit is unique, and its distance bounded."""
    problem, module = PHYSICS["denoising"].pose(), POTENTIALS["slightly"]()
    s, near = (solved(pnp.PGD(0.9), problem, module, tolerance) for tolerance in (1e-8, 1e-3))
    assert s.guarantee.contraction < 1 and s.guarantee.assumptions == (ARITHMETIC,)
    assert float((s.estimate - near.estimate).norm()) <= float(near.error_bound)
    other = solved(pnp.PGD(0.9), problem, module, 1e-8, start=torch.zeros_like(problem.start))
    torch.testing.assert_close(other.estimate, s.estimate, atol=1e-6, rtol=0)


def test_admm_takes_a_weakly_convex_potential_where_the_data_are_convex_enough() -> None:
    """M = 0.16 needs step_size mu > M/(1 - 2M) = 0.2353; the limit is that of PGD."""
    problem, module = PHYSICS["denoising"].pose(), POTENTIALS["slightly"]()
    for algorithm in (pnp.ADMM(0.9), pnp.DRS(0.9)):
        s = solved(algorithm, problem, module, 1e-8)
        assert s.guarantee.averagedness < 1 and s.guarantee.assumptions == (ARITHMETIC,)
        torch.testing.assert_close(s.estimate, solved(pnp.PGD(0.9), problem, module, 1e-8).estimate, atol=1e-4, rtol=0)
    with pytest.raises(pnp.Refused, match="above 0.235295"):
        solved(pnp.ADMM(0.2), problem, module)
    with pytest.raises(pnp.Refused, match="which no step_size allows"):
        solved(pnp.ADMM(9.0), problem, POTENTIALS["weakly"]())
    with pytest.raises(pnp.Refused, match="Take pnp.Descent"):
        solved(pnp.ADMM(0.9), PHYSICS["inpainting"].pose(), module)


def test_the_averagedness_of_douglas_rachford_holds_on_quadratics() -> None:
    """P11 for f = a x^2/2 and R = -M x^2/2 + a convex quadratic, entry by entry: the worst ratio comes close to 1."""
    for weak, strength in ((0.1, 0.5), (0.3, 2.0), (0.05, 0.0575)):
        potential = Potential(weak, 1.0, "a quadratic")
        alpha = weak_douglas_rachford("ADMM", potential, Fraction(strength), step_size=1.0).averagedness
        for slope in (-weak, 0.0, 0.3, 5.0):  # of grad R
            for curvature in (strength, 2 * strength, 50.0):  # of f
                x = 1 / (1 + slope)
                t = 1 + (2 * x - 1) / (1 + curvature) - x
                assert t**2 + (1 - alpha) / alpha * (1 - t) ** 2 <= 1 + 1e-12


def test_errors_of_proximal_operators_are_carried() -> None:
    module, x = Bent(), PHYSICS["blur_fft"].image()
    exact, _ = explicit.within(module, x, LEVEL, 1e-12)
    for wrapper, size in ((module, 1.0), (pnp.Clipped(module), 1.0), (pnp.Relaxed(module, 0.5), 0.5)):
        image, error = explicit.within(wrapper, x, LEVEL, 1e-3)
        reference = wrapper(x, LEVEL) if wrapper is not module else exact
        assert 1e-5 < float(error) <= 1e-3 and float((image - reference).norm()) <= float(error) + size * 1e-4
    color = torch.cat([x, x.flip(-1), 1 - x], 1)
    image, error = explicit.within(pnp.Channelwise(module), color, LEVEL, 1e-3)
    assert image.shape == color.shape and error.shape == (1,) and 0 < float(error) <= 1e-3
    problem, denoise = PHYSICS["blur_fft"].pose(), pnp.prior(module).at(LEVEL)
    for algorithm in (pnp.PGD(), pnp.HQS(), pnp.ADMM(), pnp.DRS(), pnp.RED(), pnp.CondatVu()):
        settled = algorithm.settle(problem, pnp.prior(module))
        point = settled.start(problem, problem.start)
        rough, fine = (settled.apply(problem, denoise, point, accuracy=a) for a in (1e-2, 1e-11))
        apart = settled.norm(problem, tuple(a - b for a, b in zip(rough.point, fine.point, strict=True)))
        assert 0 < float(apart) <= float(rough.error) + float(fine.error)


def test_an_error_that_nobody_tells_is_refused() -> None:
    physics, y = deepinv.physics.Denoising(), torch.rand(1, 1, 8, 8)
    with pytest.raises(pnp.Refused, match="the Bent inside is a proximal operator known up to an error"):
        pnp.solve(pnp.PGD(), y, physics, Symmetrized(Bent()), noise_level=0.05)


def test_the_decrease_of_proximal_descent() -> None:
    potential = Potential(0.8, 8.0, "claimed")
    with pytest.raises(pnp.Refused, match="must lie below 2 - M"):
        proximal_descent("PGD", potential, Fraction(6, 5), step_size=1.0)
    assert proximal_descent("PGD", potential, Fraction(11, 10), step_size=1.0).watch.decrease == pytest.approx(0.05)
