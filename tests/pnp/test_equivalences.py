"""Algorithms that are the same in theory are the same here, and their limits are those of independent solvers."""

from __future__ import annotations

import cvxpy
import deepinv
import numpy as np
import pytest
import torch
from torch import Tensor

import pnp
from tests.inventory.denoisers import Shrinkage, SoftThreshold
from tests.inventory.physics import PHYSICS, dense
from tests.inventory.schemes import SCHEMES

SETTINGS = {"denoiser_noise_level": 0.05, "stop": pnp.Stop(1e-10, 20000)}


@pytest.fixture(scope="module")
def problem() -> pnp.Problem:
    return PHYSICS["blur_fft"].pose()


def admm(problem: pnp.Problem, step_size: float, level: float, iterations: int) -> Tensor:
    """ADMM in its own three variables, as textbooks write it."""
    denoiser = Shrinkage()
    with torch.no_grad():
        t = problem.prox(problem.start, step_size)[0]
        x = denoiser(t, level)
        z = t - x
        for _ in range(iterations):
            u = problem.prox(x - z, step_size)[0]
            x = denoiser(u + z, level)
            z = z + u - x
    return x


@pytest.mark.parametrize("iterations", [1, 2, 17])
def test_admm_is_douglas_rachford(iterations: int, problem: pnp.Problem) -> None:
    settings = {"denoiser_noise_level": 0.05, "stop": pnp.Stop(0.0, iterations)}
    ours = [pnp.solve(a, problem, pnp.prior(Shrinkage()), **settings) for a in (pnp.ADMM(3.0), pnp.DRS(3.0))]
    textbook = admm(problem, 3.0, 0.05, iterations)
    for solution in ours:
        torch.testing.assert_close(solution.estimate, textbook, atol=1e-12, rtol=0)
    torch.testing.assert_close(ours[0].residuals, ours[1].residuals, atol=1e-12, rtol=0)


@pytest.mark.parametrize("algorithm", [pnp.PGD(1.2), pnp.HQS(1.2), pnp.DRS(1.2), pnp.CondatVu(1.2)], ids=repr)
def test_with_a_proximal_denoiser_the_limit_is_the_optimum(algorithm: object) -> None:
    """argmin |Ax - y|^2/2 + weight |x|_1 by an interior-point solver; HQS minimizes with the Moreau envelope of f."""
    physics = deepinv.physics.BlurFFT(img_size=(1, 6, 5), filter=torch.rand(1, 1, 3, 3, dtype=torch.float64) / 5)
    matrix = dense(physics.A, (1, 6, 5)).numpy()
    y = torch.randn(1, 1, 6, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    scale = 0.9 / np.linalg.norm(matrix, 2)
    physics = deepinv.physics.BlurFFT(img_size=(1, 6, 5), filter=physics.filter * scale)
    solution = pnp.solve(
        algorithm,
        pnp.pose(y, physics, noise_level=0.05),
        pnp.prior(SoftThreshold()),
        denoiser_noise_level=0.3,
        scheme=pnp.Anderson(),
        stop=SETTINGS["stop"],
    )
    x, a, b = cvxpy.Variable(30), scale * matrix, y.flatten().numpy()
    fidelity = cvxpy.sum_squares(a @ x - b) / 2
    if isinstance(algorithm, pnp.HQS):  # min over u of f(u) + |u - x|^2/(2 gamma)
        u = cvxpy.Variable(30)
        fidelity = cvxpy.sum_squares(a @ u - b) / 2 + cvxpy.sum_squares(u - x) / (2 * 1.2)
    cvxpy.Problem(cvxpy.Minimize(1.2 * fidelity + 0.3 * cvxpy.norm1(x))).solve(
        solver=cvxpy.CLARABEL, tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13
    )
    assert solution.converged
    np.testing.assert_allclose(solution.estimate.flatten().numpy(), x.value, atol=1e-6)


def test_condat_vu_with_a_smooth_fidelity_is_proximal_gradient(problem: pnp.Problem) -> None:
    settings = {"denoiser_noise_level": 0.05, "stop": pnp.Stop(0.0, 25)}
    smooth = pnp.solve(pnp.CondatVu(1.2, fidelity="smooth"), problem, pnp.prior(Shrinkage()), **settings)
    gradient = pnp.solve(pnp.PGD(1.2), problem, pnp.prior(Shrinkage()), **settings)
    torch.testing.assert_close(smooth.estimate, gradient.estimate, atol=1e-13, rtol=0)
    torch.testing.assert_close(smooth.residuals, gradient.residuals, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "algorithm",
    [
        pnp.PGD(0.25),
        pnp.ADMM(0.25),
        pnp.DRS(0.25),
        pnp.CondatVu(0.25),
        pnp.CondatVu(0.25, dual_step_size=0.6),
        pnp.CondatVu(0.25, fidelity="smooth"),
        pnp.CondatVu(0.25, box=True),
        pnp.CondatVu(0.25, fidelity="smooth", box=True),
    ],
    ids=repr,
)
def test_one_step_size_is_one_fixed_point(algorithm: object) -> None:
    """x = D(x - gamma grad f(x)), which lies inside the box here, so that the box changes nothing."""
    problem = PHYSICS["weighting"].pose()
    reference = pnp.solve(pnp.PGD(0.25), problem, pnp.prior(Shrinkage()), **SETTINGS).estimate
    solution = pnp.solve(algorithm, problem, pnp.prior(Shrinkage()), scheme=pnp.Anderson(), **SETTINGS)
    assert float(reference.min()) > 0 and float(reference.max()) < 1
    torch.testing.assert_close(solution.estimate, reference, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("algorithm", [pnp.PGD(), pnp.DRS(), pnp.CondatVu()], ids=repr)
def test_all_schemes_have_one_limit(algorithm: object, scheme: str) -> None:
    """From a start nearby, as Halpern's error falls like 1/k only."""
    problem, prior = PHYSICS["weighting"].pose(), pnp.prior(Shrinkage())
    reference = pnp.solve(algorithm, problem, prior, **SETTINGS)
    noise = torch.randn(problem.start.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    near = reference.estimate + 1e-4 * noise
    if scheme == "halpern" and isinstance(algorithm, pnp.CondatVu):
        pytest.skip("its dual start is far away: the 1/k of Halpern would take millions of iterations")
    if scheme == "halpern" and isinstance(algorithm, pnp.DRS):
        pytest.skip("its start is a proximal point, far from the fixed point in t")
    stop = pnp.Stop(1e-10, 4000)
    solution = pnp.solve(algorithm, problem, prior, scheme=SCHEMES[scheme], start=near, stop=stop, denoiser_noise_level=0.05)
    torch.testing.assert_close(solution.estimate, reference.estimate, atol=1e-6, rtol=0)
