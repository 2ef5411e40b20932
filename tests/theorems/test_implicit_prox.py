"""The derivatives of a proximal map are those of the implicit function theorem (docs/theorems.md, V2)."""

from __future__ import annotations

import pytest
import torch

from stablenet.networks import RidgeArchitecture, implicit, ridge
from stablenet.networks.implicit import ImplicitResolvent
from stablenet.networks.reweighted import Reweighted
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


@pytest.mark.parametrize("channels", [1, 3])
def test_products_in_bfloat16_round_differences_and_not_brightness(channels):
    """Rounding the image would be an error of 2^-9 of its brightness in each feature: as large as the features themselves."""
    module = wild_ridge(RidgeArchitecture(channels, filters=6, kernel_size=7, weak_convexity=0.7)).requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    noise = 0.02 * torch.randn(2, channels, 20, 18, generator=generator)
    weights = torch.randn(noise.shape, generator=generator)

    def removed(brightness: float, *, half: bool) -> list[torch.Tensor]:
        """What denoising a noisy gray image takes off, and the gradient of a weighted sum of it."""
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            x = module(brightness + noise, 0.02)
        (weights * x).sum().backward()
        assert x.dtype == torch.float32
        return [x.detach() - brightness - noise, module.kernels.grad.clone()]

    exact, dark, bright = removed(0.0, half=False), removed(0.0, half=True), removed(1.0, half=True)
    for one, two, three in zip(exact, dark, bright, strict=True):
        assert float((two - one).norm()) < 0.05 * float(one.norm())
        assert float((three - two).norm()) < 0.04 * float(two.norm())


@pytest.mark.parametrize("name", ["weakly-convex", "color"])
def test_a_resolvent_against_differences(name, monkeypatch):
    """Odd sides too, where cells hold features of no pixel."""
    monkeypatch.setattr(implicit, "TOLERANCE", 1e-9)
    monkeypatch.setattr(implicit, "ITERATIONS", 400)
    monkeypatch.setattr(implicit, "RESOLVENT", (1e-12, 400))
    module = wild_ridge(SHAPES[name]).double()
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(2, module.channels, 7, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    m = torch.rand(2, 4, 3, 4, 4 * module.architecture.filters, generator=generator, dtype=torch.float64).mul_(9)
    m.requires_grad_(True)
    direction, along = (torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in (y, m))
    (direction * ImplicitResolvent.apply(y, module.bank(), m)).sum().backward()
    exact = Reweighted(module.bank(), m.detach(), (7, 6), torch.full((2,), SIGMA)).denoise(y.detach(), accuracy=1e-11).image
    assert torch.allclose(ImplicitResolvent.apply(y, module.bank(), m), exact, atol=1e-8)
    for value, step in ((y, direction), (m, along)):
        ends = []
        for sign in (1, -1):
            moved = {id(y): y.detach(), id(m): m.detach()}
            moved[id(value)] = moved[id(value)] + sign * 1e-5 * step
            ends.append(float((direction * ImplicitResolvent.apply(moved[id(y)], module.bank(), moved[id(m)])).sum()))
        assert float((value.grad * step).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-7)


def test_what_inference_kept_serves_training():
    module = wild_ridge(SHAPES["weakly-convex"]).requires_grad_(True)
    with torch.inference_mode():
        module(torch.rand(1, 1, 14, 15), SIGMA)
    module(torch.rand(1, 1, 14, 15), SIGMA).square().sum().backward()
    assert all(float(p.grad.norm()) > 0 for p in module.parameters())


def test_evaluation_is_in_float32_under_autocast_too():
    module = wild_ridge(SHAPES["weakly-convex"])
    y = torch.rand(1, 1, 12, 13, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = module(y, SIGMA), *module.energy_and_gradient(y, SIGMA)
    for one, other in zip(found, (module(y, SIGMA), *module.energy_and_gradient(y, SIGMA)), strict=True):
        assert torch.equal(one, other)
