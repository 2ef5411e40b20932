"""Descent on an explicit energy: F never rises, the limit is critical, or a global minimizer, and nothing is assumed of R."""

from __future__ import annotations

import math

import deepinv
import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import pnp
from pnp.guarantees import ARITHMETIC
from tests.inventory.denoisers import Shrinkage
from tests.inventory.energies import POTENTIALS, Bent, Understated
from tests.inventory.physics import PHYSICS
from tests.inventory.potentials import POTENTIALS as WILD
from tests.inventory.potentials import SHAPES

SCHEMES = {"plain": pnp.Plain(), "anderson": pnp.Anderson(), "quasi-newton": pnp.QuasiNewton()}
LEVEL = 0.05


@pytest.fixture(scope="module")
def problem() -> pnp.Problem:
    return PHYSICS["blur_fft"].pose()


def energy(problem: pnp.Problem, module: Bent, weight: float, x: torch.Tensor) -> torch.Tensor:
    return problem.value(x) + weight * module.energy(x, LEVEL)


@pytest.mark.parametrize("potential", POTENTIALS)
def test_gradients_are_those_of_the_energies(potential: str) -> None:
    module, generator = POTENTIALS[potential](), torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, 9, 8, generator=generator, dtype=torch.float64).requires_grad_()
    energies, gradient = module.energy_and_gradient(x, LEVEL)
    (expected,) = torch.autograd.grad(energies.sum(), x)
    torch.testing.assert_close(gradient.detach(), expected, rtol=1e-10, atol=1e-12)


def test_the_problem_gives_value_and_gradient_at_once(problem: pnp.Problem) -> None:
    x = PHYSICS["blur_fft"].image(seed=4)
    value, gradient = problem.value_and_gradient(x)
    torch.testing.assert_close(value, problem.value(x))
    torch.testing.assert_close(gradient, problem.gradient(x))


@pytest.mark.parametrize("scheme", ["anderson", "quasi-newton"])
@pytest.mark.parametrize("potential", [name for name, shape in SHAPES.items() if shape.channels == 1])
def test_jumps_pay(potential: str, scheme: str, problem: pnp.Problem) -> None:
    """Where F decides on them, a quarter of the plain evaluations is enough."""
    ridge, stop = WILD[potential]().double(), pnp.Stop(1e-7, 3000)
    plain, fast = (pnp.solve(pnp.Descent(), problem, ridge, scheme=SCHEMES[s], stop=stop) for s in ("plain", scheme))
    assert plain.converged and fast.converged and fast.iterations < 0.25 * plain.iterations


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("potential", POTENTIALS)
def test_energies_never_rise_and_the_limit_is_critical(potential: str, scheme: str, problem: pnp.Problem) -> None:
    module = POTENTIALS[potential]()
    s = pnp.solve(
        pnp.Descent(weight=0.4),
        problem,
        pnp.prior(module),
        scheme=SCHEMES[scheme],
        stop=pnp.Stop(1e-9, 20000),
        denoiser_noise_level=LEVEL,
    )
    assert s.converged and s.energies is not None
    assert bool((s.energies.diff(dim=0) <= 1e-14).all())
    decrease = s.guarantee.watch.decrease
    fallen = s.energies[0] - s.energies[-1]
    assert decrease * float((s.residuals[:-1] ** 2).sum()) <= float(fallen) * (1 + 1e-9) + 1e-12 or scheme != "plain"
    x, weight = s.estimate, s.algorithm.weight
    assert float(energy(problem, module, weight, x)) <= float(s.energies[-1]) + 1e-14
    slope = problem.gradient(x) + weight * module.gradient(x, LEVEL)
    mapping = x - (x - slope).clamp(0, 1)
    assert float(mapping.norm()) <= 1e-9 * math.sqrt(x.numel()) * (1 / s.algorithm.step_size + 1) * 2


@pytest.mark.parametrize("potential", ["convex", "convex-steep"])
def test_a_convex_energy_reaches_its_minimum(potential: str, problem: pnp.Problem) -> None:
    """Against L-BFGS-B of scipy."""
    module, shape = POTENTIALS[potential](), problem.start.shape
    s = pnp.solve(pnp.Descent(weight=0.3), problem, pnp.prior(module), stop=pnp.Stop(1e-10, 20000), denoiser_noise_level=LEVEL)
    assert "a global minimizer" in s.guarantee.theorem and not s.guarantee.gives_up

    def function(flat: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.from_numpy(flat).reshape(shape)
        slope = problem.gradient(x) + 0.3 * module.gradient(x, LEVEL)
        return float(energy(problem, module, 0.3, x)), slope.flatten().numpy()

    start = np.full(problem.start.numel(), 0.5)
    found = minimize(
        function,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, 1)] * len(start),
        options={"ftol": 1e-16, "gtol": 1e-12, "maxiter": 5000},
    )
    reached = float(energy(problem, module, 0.3, s.estimate))
    assert reached <= found.fun * (1 + 1e-12) and reached == pytest.approx(found.fun, rel=1e-6)


def test_a_strongly_convex_fidelity_makes_up_for_a_weakly_convex_potential() -> None:
    problem, prior = PHYSICS["denoising"].pose(), pnp.prior(POTENTIALS["weakly"]())
    made = [pnp.plan(pnp.Descent(weight=w), problem, prior, denoiser_noise_level=LEVEL).guarantee for w in (1.0, 1.2, 1.3)]
    assert ["global minimizer" in g.theorem for g in made] == [True, True, False]  # M = 0.8 times the weight against 1
    assert made[0].contraction is not None and made[2].contraction is None
    s = pnp.solve(pnp.Descent(weight=1.0), problem, prior, stop=pnp.Stop(1e-10, 9000), denoiser_noise_level=LEVEL)
    near = pnp.solve(pnp.Descent(weight=1.0), problem, prior, stop=pnp.Stop(1e-4, 9000), denoiser_noise_level=LEVEL)
    assert float((near.estimate - s.estimate).norm()) <= float(near.error_bound)


@pytest.mark.parametrize("potential", POTENTIALS)
def test_nothing_is_assumed_but_floating_point(potential: str, problem: pnp.Problem) -> None:
    guarantee = pnp.plan(pnp.Descent(), problem, pnp.prior(POTENTIALS[potential]())).guarantee
    assert guarantee.assumptions == (ARITHMETIC,)
    printed = str(guarantee)
    assert "F never rises" in printed and "the box [0, 1] of pixels is compact" in printed
    convex = potential.startswith("convex")
    assert ("this rung gives up: the iteration map is not nonexpansive" in printed) == (not convex)
    assert ("to one critical point" in printed) == (not convex)


def test_steps_beyond_the_theorem_are_refused(problem: pnp.Problem) -> None:
    prior = pnp.prior(Bent(mu=1.0, rho=0.1))
    usual = pnp.plan(pnp.Descent(weight=0.5), problem, prior).algorithm
    total = problem.smoothness.value + 0.5 * 8
    assert usual.step_size == pytest.approx(1.9 / total)
    with pytest.raises(pnp.Refused, match=r"Descent with step_size=0.5 is not covered: .* so step_size must lie in \(0, 0.399"):
        pnp.plan(pnp.Descent(0.5, 0.5), problem, prior)
    for step, weight in ((-1.0, 0.5), (math.nan, 0.5), (0.1, 0.0), (0.1, math.inf)):
        with pytest.raises(pnp.Refused, match="finite and positive"):
            pnp.plan(pnp.Descent(step, weight), problem, prior)


def test_quasi_newton_needs_an_energy(problem: pnp.Problem) -> None:
    with pytest.raises(pnp.Refused, match="needs an algorithm that descends on an energy"):
        pnp.plan(pnp.PGD(), problem, pnp.prior(Bent()), scheme=pnp.QuasiNewton())
    counts = []
    for scheme in (pnp.Plain(), pnp.QuasiNewton()):
        settings = {"scheme": scheme, "stop": pnp.Stop(1e-7, 9000), "denoiser_noise_level": LEVEL}
        counts.append(pnp.solve(pnp.Descent(weight=0.1), problem, pnp.prior(Bent(mu=2.0)), **settings).iterations)
    assert counts[1] <= counts[0] / 3


def test_a_denoiser_without_a_potential_is_refused(problem: pnp.Problem) -> None:
    for denoiser in (Shrinkage(), pnp.Clipped(Bent())):
        with pytest.raises(pnp.Refused, match="needs a denoiser with an explicit potential"):
            pnp.plan(pnp.Descent(), problem, pnp.prior(denoiser))


def test_understated_slopes_are_caught_by_the_watch() -> None:
    """At 3 percent, near the end of the step sizes, where the finest checkerboard grows instead of shrinking."""
    y = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64) / 50 + 0.5
    problem = pnp.pose(y, deepinv.physics.Denoising(), noise_level=0.03)

    def run(module: Bent, claimed: float, scheme: object) -> pnp.Run:
        step_size = 0.999 * 2 / (1 + 4 * claimed * 8)
        chosen, stop = pnp.Descent(step_size, 4.0), pnp.Stop(0.0, 300)
        return pnp.plan(chosen, problem, pnp.prior(module), scheme=scheme, stop=stop, denoiser_noise_level=0.5)

    list(pnp.iterate(run(Bent(mu=1.0), 1.0, pnp.Plain())))
    with pytest.raises(pnp.GuaranteeViolated, match="F of image 0 is"):
        list(pnp.iterate(run(Understated(mu=1.0), 0.97, pnp.Plain())))


def test_images_do_not_feel_each_other() -> None:
    physics, prior = PHYSICS["blur_fft"].make(torch.float64), pnp.prior(POTENTIALS["weakly"]())
    generator = torch.Generator().manual_seed(3)
    y = torch.rand(3, 1, 9, 8, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 0.2, 0.6]).reshape(3, 1, 1, 1)
    stop = pnp.Stop(1e-4, 2000)

    def solved(part: torch.Tensor) -> pnp.Solution:
        return pnp.solve(pnp.Descent(), pnp.pose(part, physics, noise_level=0.03), prior, stop=stop)

    together = solved(y)
    for i in range(3):
        alone = solved(y[i : i + 1])
        torch.testing.assert_close(together.estimate[i : i + 1], alone.estimate, atol=1e-8, rtol=0)
        torch.testing.assert_close(together.energies[: alone.iterations, i], alone.energies[:, 0], atol=1e-8, rtol=0)


def test_a_gray_potential_takes_color() -> None:
    problem = PHYSICS["blur_fft_color"].pose()
    s = pnp.solve(pnp.Descent(), problem, pnp.prior(Bent(mu=1.0, rho=0.1)), stop=pnp.Stop(1e-5, 3000))
    assert s.converged and s.estimate.shape[1] == 3 and s.guarantee.assumptions == (ARITHMETIC,)


@pytest.mark.parametrize("physics", PHYSICS)
def test_every_physics_is_solved(physics: str) -> None:
    s = pnp.solve(pnp.Descent(), PHYSICS[physics].pose(), pnp.prior(POTENTIALS["weakly"]()), stop=pnp.Stop(1e-3, 2000))
    assert s.converged and bool((s.energies.diff(dim=0) <= 1e-12).all())
    assert float(s.estimate.min()) >= 0 and float(s.estimate.max()) <= 1
