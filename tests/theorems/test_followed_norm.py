"""The norm that training follows for many inputs lies below the certified bound and near it, and its wave attains it."""

from __future__ import annotations

import pytest
import torch

from stablenet import spectral
from stablenet.blocks import GradientFlow
from stablenet.linear import Conv2d
from stablenet.spectral import symbols

SHAPES = [(5, 6, 1), (8, 8, 3), (12, 6, 5), (6, 16, 7)]


def settled(kernel: torch.Tensor, steps: int = 60) -> tuple[float, torch.Tensor]:
    directions = symbols.start(kernel, torch.Generator().manual_seed(0)).to(kernel.dtype)
    for _ in range(steps):
        norm, wave, directions = symbols.follow(kernel, directions)
    return norm, wave


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [0, 1])
def test_below_the_bound_and_near_it(shape, seed):
    outputs, inputs, k = shape
    kernel = torch.randn(outputs, inputs, k, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    norm, wave = settled(kernel)
    bound = spectral.convolution_upper_bound(kernel)
    assert 0.95 * bound < norm <= bound
    assert float(symbols.gain(kernel, wave)) == pytest.approx(norm)
    unit = torch.complex(*wave)[:, 0, 0]
    assert float(unit.abs().square().sum()) == pytest.approx(1)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_frequency_settles_on_its_singular_value(shape):
    """Against a dense SVD of the symbol, frequency by frequency: no more than the power iteration's own lag."""
    outputs, inputs, k = shape
    kernel = torch.randn(outputs, inputs, k, k, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    points = 2 * k + 1
    symbol = torch.fft.fft2(kernel, s=(points, points)).permute(2, 3, 0, 1)
    largest = float(torch.linalg.matrix_norm(symbol, 2).max())
    assert settled(kernel, 300)[0] == pytest.approx(largest, rel=1e-3)


def test_one_step_a_time_keeps_up_with_moving_weights():
    torch.manual_seed(0)
    flow = GradientFlow(Conv2d(12, 12, 3), torch.nn.ReLU(), max_iterations=1)
    for _ in range(60):
        with torch.no_grad():
            flow.linear.weight.add_(0.01 * torch.randn_like(flow.linear.weight))
        flow.enforce()
    bound = flow.spectral_norm_bound()
    assert 0.93 * bound < flow.followed.norm <= bound * (1 + 1e-6)
