"""The derivatives of a proximal map are those of the implicit function theorem (docs/theorems.md, V2)."""

from __future__ import annotations

import pytest
import torch

from stablenet.networks import implicit, ridge
from tests.inventory.potentials import SHAPES, wild_ridge

SIGMA = 0.1


@pytest.mark.parametrize("name", ["convex", "weakly-convex", "color"])
def test_against_differences(name, monkeypatch):
    monkeypatch.setattr(ridge, "IN_TRAINING", (1e-10, 1000))
    monkeypatch.setattr(implicit, "TOLERANCE", 1e-9)
    monkeypatch.setattr(implicit, "ITERATIONS", 400)
    module = wild_ridge(SHAPES[name]).double().requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(1, module.channels, 7, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    (weights * module(y, SIGMA)).sum().backward()
    for value in (y, module.kernels, module.log_curvature, module.slopes, module.log_scales):
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                value += sign * 1e-6 * direction
                ends.append(float((weights * module.denoise(y, SIGMA, accuracy=1e-11).image).sum()))
                value -= sign * 1e-6 * direction
        assert float((value.grad * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=2e-3, abs=1e-6)
