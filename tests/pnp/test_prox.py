"""gradient and prox of a posed problem are those of 1/2 |Ax - y|^2, with an error bound, against dense algebra."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.inventory.physics import PHYSICS, Case, dense


def exact(problem_dense: tuple[Tensor, Tensor], v: Tensor, step_size: float) -> Tensor:
    """(I + gamma A^T A)^-1 (v + gamma A^T y) in float64."""
    A, y = problem_dense
    right = v.double().flatten() + step_size * A.T @ y
    return torch.linalg.solve(torch.eye(A.shape[1], dtype=torch.float64) + step_size * A.T @ A, right).reshape(v.shape)


@pytest.mark.parametrize("step_size", [0.1, 2.0, 50.0])
@pytest.mark.parametrize("case", PHYSICS.values(), ids=PHYSICS)
def test_prox_is_within_its_bound_of_a_dense_solve(case: Case, step_size: float) -> None:
    problem = case.pose()
    matrix = dense(problem.physics.A, case.shape)
    v = case.image(seed=5)
    p, error = problem.prox(v, step_size)
    distance = torch.linalg.vector_norm((p - exact((matrix, problem.measurement.flatten()), v, step_size)).flatten(1), dim=1)
    from_single_precision = 1e-6 * float(torch.linalg.vector_norm(v)) * (1 + step_size * problem.smoothness.value)
    assert float(error.max()) < 1e-9 * (1 + step_size * problem.smoothness.value)
    assert bool((distance <= error + (from_single_precision if _holds_single_precision(problem.physics) else 0)).all())


@pytest.mark.parametrize("case", PHYSICS.values(), ids=PHYSICS)
def test_prox_and_gradient_agree_in_single_precision(case: Case) -> None:
    problem = case.pose(torch.float32)
    assert problem.backprojection.dtype == torch.float32
    v = case.image(seed=5, dtype=torch.float32)
    step_size = 2.0 / problem.smoothness.value
    p, error = problem.prox(v, step_size)
    residual = torch.linalg.vector_norm((p + step_size * problem.gradient(p) - v).flatten(1), dim=1)
    assert bool((residual <= 4 * error).all())  # |I + gamma A^T A| <= 3, and as much again for the test's own rounding


@pytest.mark.parametrize("case", PHYSICS.values(), ids=PHYSICS)
def test_gradient_is_that_of_the_value(case: Case) -> None:
    problem = case.pose()
    x = case.image(seed=6).requires_grad_(True)
    (slope,) = torch.autograd.grad(problem.value(x).sum(), x)
    torch.testing.assert_close(problem.gradient(x.detach()), slope, atol=1e-5 * problem.smoothness.value, rtol=0)


def test_the_formulas_are_used_where_there_are_some() -> None:
    formulas = {name for name, case in PHYSICS.items() if case.pose(torch.float32).exact_prox}
    assert {"denoising", "inpainting", "demosaicing", "mri", "blur_fft", "blur_fft_signed", "downsampling"} <= formulas
    assert not {"blur_valid", "blur_zero", "tomography", "own", "downsampling_uneven"} & formulas


def _holds_single_precision(physics: object) -> bool:
    """BlurFFT keeps its phase in the precision of its making, Denoising a mask of 1."""
    return type(physics).__name__ in ("BlurFFT", "Tomography")
