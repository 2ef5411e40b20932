"""A Problem computes gradients and proximal operators, and refuses what is not a linear physics with its adjoint."""

from __future__ import annotations

import deepinv
import pytest
import torch
from torch import Tensor

import pnp


def linear(factor: float) -> deepinv.physics.LinearPhysics:
    return deepinv.physics.LinearPhysics(A=lambda x: factor * x, A_adjoint=lambda y: factor * y)


def test_gradient_and_prox_agree_with_the_normal_equations(measurement: Tensor, physics: deepinv.physics.BlurFFT) -> None:
    problem = pnp.pose(measurement, physics, noise_level=0.03)
    v = torch.rand(measurement.shape, generator=torch.Generator().manual_seed(5))
    p, error = problem.prox(v, 3.0)
    assert float(error.max()) < 1e-4
    torch.testing.assert_close(p + 3.0 * problem.gradient(p), v, atol=1e-5, rtol=0)
    x = v.clone().requires_grad_(True)
    (0.5 * ((physics.A(x) - measurement) ** 2).sum()).backward()
    torch.testing.assert_close(problem.gradient(v), x.grad, atol=1e-5, rtol=0)


@pytest.mark.parametrize("accuracy", [1e-1, 1e-3])
def test_the_iterated_prox_is_as_accurate_as_it_says(image: Tensor, kernel: Tensor, accuracy: float) -> None:
    physics = deepinv.physics.Blur(kernel.double(), padding="constant")
    y = torch.cat([image, 0.1 * image]).double()
    problem = pnp.pose(y, physics, noise_level=0.03)
    v = torch.rand(y.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    p, error = problem.prox(v, 5.0, accuracy=accuracy)
    exact, _ = problem.prox(v, 5.0)
    distance = torch.linalg.vector_norm((p - exact).flatten(1), dim=1)
    assert bool((distance <= error + 1e-9).all())
    assert float(error.max()) <= accuracy


def test_a_supplied_smoothness_is_used_and_probed(image: Tensor) -> None:
    assert pnp.pose(image, linear(2.0), noise_level=0.03, smoothness=4.5).smoothness.value == 4.5
    with pytest.raises(pnp.Refused, match="not an upper bound"):
        pnp.pose(image, linear(2.0), noise_level=0.03, smoothness=3.9)
    with pytest.raises(ValueError, match="finite and positive"):
        pnp.pose(image, linear(2.0), noise_level=0.03, smoothness=float("nan"))


def test_a_wrong_adjoint_is_refused(image: Tensor) -> None:
    physics = deepinv.physics.LinearPhysics(A=lambda x: torch.roll(x, 1, -1), A_adjoint=lambda y: torch.roll(y, 1, -1))
    with pytest.raises(pnp.Refused, match="adjoint"):
        pnp.pose(image, physics, noise_level=0.03, smoothness=1.0)


def test_an_operator_that_is_not_linear_is_refused(image: Tensor) -> None:
    physics = deepinv.physics.LinearPhysics(A=torch.relu, A_adjoint=lambda y: y)
    with pytest.raises(pnp.Refused, match="linear"):
        pnp.pose(image, physics, noise_level=0.03, smoothness=1.0)
    with pytest.raises(pnp.Refused, match="linear physics"):
        pnp.pose(image, deepinv.physics.Haze(), noise_level=0.03)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda y: (255 * y).to(torch.uint8), "float32 or float64"),
        (lambda y: y.half(), "float32 or float64"),
        (lambda y: 255 * y, "255"),
        (lambda y: torch.where(y > 0.5, torch.nan, y), "NaN or infinite"),
        (lambda y: torch.where(y > 0.5, torch.inf, y), "NaN or infinite"),
        (lambda y: y[..., :-1], "does not fit"),
        (lambda y: y[:0], "empty"),
    ],
)
def test_bad_measurements_are_errors(
    spoil: object, message: str, measurement: Tensor, physics: deepinv.physics.BlurFFT
) -> None:
    with pytest.raises(ValueError, match=message):
        pnp.pose(spoil(measurement), physics, noise_level=0.03)


def test_a_measurement_that_is_no_tensor_is_an_error(physics: deepinv.physics.BlurFFT) -> None:
    with pytest.raises(TypeError, match="torch.Tensor"):
        pnp.pose([[1.0]], physics, noise_level=0.03)
