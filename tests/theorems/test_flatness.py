"""Noise by radial bands: squares add up to the mean square, a wave lies in its own band, the identity leaves what is given."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from stablenet.flatness import EDGES, flat_noise, in_bands, total
from stablenet.weights import pretrained


def weighted(weight: float) -> Callable[[torch.Tensor, float], torch.Tensor]:
    """(1 - w) x + w times the mean of x: what it leaves can be computed."""
    return lambda x, sigma: torch.lerp(x, x.mean((2, 3), keepdim=True), weight)


@pytest.mark.parametrize("shape", [(1, 1, 24, 24), (2, 3, 17, 40), (5, 8)])
def test_squares_of_the_bands_add_up_to_the_mean_square(shape):
    residual = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert total(in_bands(residual)) == pytest.approx(float(residual.double().square().mean().sqrt()), rel=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(1, 0), (3, 4), (0, 9), (20, 20), (-31, 2)])
def test_a_wave_lies_in_the_band_of_its_frequency(rows, columns):
    side = 64
    y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    bands = in_bands(0.3 * torch.cos(2 * math.pi * (rows * y + columns * x) / side))
    frequency = math.hypot(rows, columns) / side
    for (low, high), value in bands.items():
        assert value == pytest.approx(0.3 / math.sqrt(2) if low <= frequency < high else 0.0, abs=1e-12)


def test_bands_share_white_noise_by_their_areas():
    side, level = 192, 25 / 255
    frequencies = [math.hypot(*(min(k, side - k) / side for k in (i, j))) for i in range(side) for j in range(side)]
    for (low, high), value in flat_noise(weighted(0.0), level, size=side, border=0).items():
        share = sum(low <= f < high for f in frequencies) / side**2
        assert value == pytest.approx(level * math.sqrt(share), rel=0.15)


@pytest.mark.parametrize("weight", [0.25, 0.9])
def test_a_linear_map_leaves_its_share(weight):
    all_of_it, left = (flat_noise(weighted(w), 0.1, border=0) for w in (0.0, weight))
    assert total(left, EDGES[1:3]) == pytest.approx((1 - weight) * total(all_of_it, EDGES[1:3]), rel=1e-4)


def test_a_shipped_denoiser_leaves_less_than_it_was_given_in_every_band_above_the_lowest():
    network, level = pretrained("denoiser-gray-small"), 25 / 255
    given, left = (flat_noise(d, level, size=96, border=16) for d in (weighted(0.0), network))
    assert all(left[band] < given[band] for band in left if band[0] >= 1 / 16)
    assert total(left) < 0.3 * level
