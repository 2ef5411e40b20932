"""Where a fixed point is proved to exist it does, and the error bound of a linear rate bounds the true error."""

from __future__ import annotations

from fractions import Fraction

import deepinv
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pnp
import stablenet.certificate
from pnp.guarantees import ARITHMETIC, FIXED_POINT
from stablenet.certificate import Certificate
from tests.inventory.algorithms import ALGORITHMS
from tests.inventory.denoisers import DENOISERS, Affine, Shrinkage
from tests.inventory.physics import PHYSICS
from tests.inventory.schemes import SCHEMES


def half_measured() -> pnp.Problem:
    """Inpainting: nothing of the data fidelity determines the other half."""
    return PHYSICS["inpainting"].pose()


@pytest.mark.parametrize("denoiser", ["clipped", "clipped-averaged", "relaxed-clipped"])
@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "condat-vu-box"])
def test_with_a_clipped_prior_nothing_is_assumed_but_arithmetic(algorithm: str, denoiser: str) -> None:
    solution = pnp.solve(ALGORITHMS[algorithm], half_measured(), pnp.prior(DENOISERS[denoiser]()), stop=pnp.Stop(1e-3, 2000))
    assert solution.guarantee.assumptions == (ARITHMETIC,)
    assert "a fixed point exists: the denoiser pulls every image into the box" in str(solution.guarantee)
    assert solution.converged


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_without_it_the_fixed_point_is_assumed(algorithm: str) -> None:
    run = pnp.plan(ALGORITHMS[algorithm], half_measured(), pnp.prior(Shrinkage()))
    assert run.guarantee.assumptions == (FIXED_POINT, ARITHMETIC)


def test_over_relaxed_clipping_proves_no_fixed_point() -> None:
    """(1 - l) x + l P(D(x)) with l > 1 pushes away from the box."""
    assert pnp.prior(pnp.Relaxed(pnp.Clipped(Shrinkage(step=0.05)), 1.1)).box_weight is None
    assert pnp.prior(pnp.Relaxed(pnp.Relaxed(pnp.Clipped(Shrinkage()), 0.5), 0.5)).box_weight == 0.25
    assert pnp.prior(pnp.Clipped(pnp.Relaxed(Shrinkage(), 0.5))).box_weight == 1.0


@pytest.mark.parametrize("algorithm", ["pgd", "hqs"])
def test_the_claimed_ball_is_mapped_into_itself(algorithm: str) -> None:
    """The proof of existence for J = (1 - l) I + l P D: T maps the ball of radius R + (1 - l)/l |T_f 0| into itself."""
    problem, weight = half_measured(), 0.3
    prior = pnp.prior(pnp.Relaxed(pnp.Clipped(Shrinkage()), weight))
    run = pnp.plan(ALGORITHMS[algorithm], problem, prior, denoiser_noise_level=0.05)
    n, gamma = problem.start.numel(), run.algorithm.step_size
    forward = gamma * problem.backprojection if algorithm == "pgd" else problem.prox(torch.zeros_like(problem.start), gamma)[0]
    radius = n**0.5 + (1 - weight) / weight * float(torch.linalg.vector_norm(forward))
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        x = torch.randn(problem.start.shape, generator=generator, dtype=torch.float64)
        x = x * radius / torch.linalg.vector_norm(x)
        image = run.algorithm.apply(problem, run.denoise, (x,), accuracy=0.0).estimate
        assert float(torch.linalg.vector_norm(image)) <= radius


@given(st.floats(0.01, 0.999))
def test_the_projection_costs_one(alpha: float) -> None:
    """alpha/(1 - alpha) + 1, that is .5/(1 - alpha/2)."""
    clipped = Certificate(1.0, alpha).then(Certificate(1.0, 0.5)).averagedness
    exact = Fraction(1, 2) / (1 - Fraction(alpha) / 2)
    assert exact <= Fraction(clipped) <= exact * (1 + Fraction(1, 10**12))
    denoiser = pnp.Clipped(Affine(0.5, Certificate(1.0, alpha)))
    assert stablenet.certificate.certify(denoiser).certificate.averagedness == clipped


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "overrelaxed"])
@pytest.mark.parametrize("algorithm", [pnp.PGD(), pnp.PGD(0.3), pnp.HQS(), pnp.HQS(5.0)], ids=repr)
@pytest.mark.parametrize("physics", ["denoising", "weighting", "inpainting"])
def test_the_error_bound_bounds_the_error(physics: str, algorithm: object, scheme: str) -> None:
    problem = PHYSICS[physics].pose()
    denoiser = DENOISERS["contractive"]() if physics == "inpainting" else Shrinkage(step=0.25)
    settings = {"denoiser_noise_level": 0.05}
    prior = pnp.prior(denoiser)
    exact = pnp.solve(algorithm, problem, prior, stop=pnp.Stop(1e-13, 20000), **settings)
    start = torch.full_like(problem.start, 3.0)
    for iterations in (1, 5, 20):
        stop = pnp.Stop(0.0, iterations)
        solution = pnp.solve(algorithm, problem, prior, scheme=SCHEMES[scheme], stop=stop, start=start, **settings)
        error = torch.linalg.vector_norm((solution.estimate - exact.estimate).flatten(1), dim=1)
        assert solution.guarantee.contraction < 1 and solution.error_bound.shape == (1,)
        assert bool((error <= solution.error_bound + 1e-11).all())
        assert solution.guarantee.assumptions == (ARITHMETIC,)
    assert "linear convergence to the only fixed point" in str(solution.guarantee)


def test_strong_convexity_takes_a_merely_nonexpansive_denoiser_as_it_is() -> None:
    problem = PHYSICS["denoising"].pose()
    solution = pnp.solve(pnp.PGD(relaxation=1.0), problem, pnp.prior(Shrinkage(step=0.25)), denoiser_noise_level=0.05)
    assert solution.converged and solution.guarantee.contraction == pytest.approx(0.9)
    with pytest.raises(pnp.Refused, match=r"averagedness <= 1.00, so relaxation must lie in \(0, 1.00\)"):
        pnp.solve(pnp.PGD(relaxation=1.0), half_measured(), pnp.prior(Shrinkage(step=0.25)), denoiser_noise_level=0.05)


def test_without_a_contraction_there_is_no_error_bound() -> None:
    assert pnp.solve(pnp.PGD(), half_measured(), pnp.prior(Shrinkage()), stop=pnp.Stop(1e-2)).error_bound is None


def test_what_is_supplied_is_assumed_and_what_was_tested_is_told() -> None:
    y = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    physics = deepinv.physics.LinearPhysics(A=lambda x: 0.5 * x, A_adjoint=lambda v: 0.5 * v)
    solution = pnp.solve(pnp.PGD(), y, physics, Shrinkage(), noise_level=0.03, smoothness=0.3, max_iterations=2)
    assert any("smoothness <= 0.30, as supplied" in text for text in solution.guarantee.assumptions)
    assert "tested, not proved: linearity and adjointness" in str(solution.guarantee)
    proved = pnp.plan(pnp.PGD(), half_measured(), pnp.prior(Shrinkage()))
    assert "smoothness <= 1.00, proved: max |mask|^2" in str(proved.guarantee)
