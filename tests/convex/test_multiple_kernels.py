"""Gated networks as kernel machines: predictions, tangent weights, closed and drawn, and the prediction error (X7, X8)."""

from __future__ import annotations

import math

import pytest
import torch

from stablenet.convex import GroupNorm, Hinge, Newton, Program, Squared, gates, run
from stablenet.convex.multiple_kernels import (
    cross_kernel,
    gaussian_noise_weight,
    kernel_ridge,
    learn_kernel,
    prediction_error_bound,
    tangent_weights,
)
from stablenet.convex.networks import export
from tests.convex.instances import data, instance


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tangent_kernel(X: torch.Tensor, Z: torch.Tensor) -> torch.Tensor:
    """x.z (pi - t)/(2 pi), the limit of many gates."""
    cosine = (X @ Z.T) / (X.norm(dim=1)[:, None] * Z.norm(dim=1))
    return (X @ Z.T) * (math.pi - torch.arccos(cosine.clamp(-1, 1))) / (2 * math.pi)


def test_weights_in_the_plane_are_those_of_the_tangent_kernel() -> None:
    X, _ = data(0, 9, 2)
    X = torch.cat([X, X[:1] * 2, -X[1:2], torch.zeros(1, 2, dtype=X.dtype)])
    cells = gates.enumerate(X)
    weights = tangent_weights(X, cells)
    assert float(weights.sum()) == pytest.approx(1) and bool((weights > 0).all())
    rows = X[:-1]
    assert torch.allclose(cross_kernel(rows, X, cells, weights)[:, :-1], tangent_kernel(rows, rows), atol=1e-7)
    drawn = tangent_weights(X, cells, draws=20_000, generator=generator())
    assert float((drawn - weights).abs().max()) < 5 * math.sqrt(0.25 / 20_000)


def test_drawn_weights_approach_the_tangent_kernel() -> None:
    X, _ = data(1, 7, 3)
    cells = gates.enumerate(X)
    with pytest.raises(ValueError, match="in 3 dimensions the weights have no closed form"):
        tangent_weights(X, cells)
    weights = tangent_weights(X, cells, draws=40_000, generator=generator())
    scale = X.norm(dim=1)[:, None] * X.norm(dim=1)
    error = (cross_kernel(X, X, cells, weights) - tangent_kernel(X, X)).abs() / scale
    assert float(error.max()) < 5 * math.sqrt(0.25 / 40_000) + len(cells) / 80_000


def test_a_side_of_the_line_has_one_half() -> None:
    X = torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64)
    assert tangent_weights(X, gates.enumerate(X)).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_learned_kernel_predicts_as_the_gated_network(outputs: int) -> None:
    X, y = data(0, 30, 4, outputs)
    program = Program(X, y, gates.sample(X, 25, generator=generator(1)), Squared(), GroupNorm(0.5))
    weights = tangent_weights(X, program.gates, draws=1000, generator=generator(2))
    machine, optimum = learn_kernel(program, weights=weights, tolerance=1e-12)
    assert optimum.gap is not None and optimum.gap <= 1e-11 * optimum.objective
    Z, _ = data(5, 40, 4)
    with torch.no_grad():
        assert torch.allclose(machine.predict(Z), export(program, optimum.variables)(Z), atol=1e-5)
    first = kernel_ridge(program, weights)
    fitted = first.predict(X)
    assert torch.allclose(fitted, cross_kernel(X, X, program.gates, weights) @ first.coefficients)
    assert torch.allclose(program.y - fitted, 0.5 * first.coefficients)


def test_the_prediction_error_is_bounded_where_beta_covers_the_noise() -> None:
    X, _ = data(2, 40, 3)
    drawn = gates.sample(X, 20, generator=generator(1))
    truth = torch.zeros(1, len(drawn), 1, 3, dtype=X.dtype)
    truth[0, :3, 0] = torch.randn(3, 3, generator=generator(3), dtype=X.dtype)
    total = float(truth.norm(dim=3).sum())
    close = 0.0
    for seed in range(5):
        noise = 0.3 * torch.randn(40, 1, generator=generator(seed), dtype=X.dtype)
        clean = Program(X, noise, drawn, Squared(), GroupNorm(1.0)).predict(truth)
        program = Program(X, clean + noise, drawn, Squared(), GroupNorm(1.0))
        beta = program.polar(noise)
        optimum = run(program.with_weight(beta), Newton(1e-9))
        error = float((program.predict(optimum.variables) - clean).square().sum())
        bound = prediction_error_bound(beta, total, noise=beta, gap=optimum.program_gap)
        assert bound is not None and error <= bound
        close = max(close, error / bound)
        assert prediction_error_bound(beta / 2, total, noise=beta) is None
    assert close > 0.02


def test_gaussian_noise_is_below_its_weight_as_often_as_promised() -> None:
    X, _ = data(3, 30, 3)
    drawn = gates.sample(X, 20, generator=generator())
    program = Program(X, torch.zeros(30, 2, dtype=X.dtype), drawn, Squared(), GroupNorm(1.0))
    least = gaussian_noise_weight(X, len(program.gates), 0.5, outputs=2, confidence=0.5)
    draws = [program.polar(0.5 * torch.randn(30, 2, generator=generator(s), dtype=X.dtype)) for s in range(60)]
    assert sum(draw > least for draw in draws) <= 30 and least < 5 * max(draws)


def test_refusals() -> None:
    X, _ = data(0, 6, 2)
    nameless = gates.Gates(gates.sample(X, 4, generator=generator()).patterns, None, False)
    with pytest.raises(ValueError, match="have no vectors"):
        cross_kernel(X, X, nameless, torch.ones(len(nameless)))
    with pytest.raises(ValueError, match="needs the squared datafit"):
        kernel_ridge(instance(Hinge(), relu=False), torch.ones(16))
    with pytest.raises(ValueError, match="as many weights >= 0"):
        program = instance(Squared(), relu=False)
        kernel_ridge(program, -torch.ones(len(program.gates), dtype=X.dtype))
    with pytest.raises(ValueError, match="draws must be at least 1"):
        tangent_weights(X, gates.sample(X, 4), draws=0)
    with pytest.raises(ValueError, match="confidence in"):
        gaussian_noise_weight(X, 3, 0.1, confidence=1.0)
    with pytest.raises(ValueError, match="are needed"):
        prediction_error_bound(0.0, 1.0, noise=0.0)
