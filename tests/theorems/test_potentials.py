"""Energy, gradient, curvature and proximal map of explicit potentials are what is proved of them (docs/theorems.md, V1, V2)."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import stablenet.certificate
from stablenet import potential
from stablenet.certificate import NotCertified
from stablenet.linear import cells
from stablenet.linear.mirrored import extended
from stablenet.networks import Ridge, RidgeArchitecture, profiles
from tests.inventory.potentials import POTENTIALS, SHAPES, wild_ridge

SIGMA = torch.tensor([0.1, 0.03], dtype=torch.float64)


def images(ridge, size=(9, 12), seed=1):
    return torch.rand(2, ridge.channels, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=list(POTENTIALS))
def ridge(request):
    return POTENTIALS[request.param]().double()


def written_out(ridge, x):
    """R by its formula: a convolution of the mirrored image, the integral of a piecewise linear function."""
    reach = ridge.architecture.kernel_size // 2
    u = torch.nn.functional.conv2d(extended(x, reach, (reach, reach)), ridge.bank())
    s, slopes = ridge.scales(SIGMA).repeat(1, 4)[..., None, None], ridge.profile_slopes().repeat(4, 1)
    v, total, value, start = u.abs() / s, 0, torch.zeros(len(slopes), dtype=torch.float64), 0.0
    for end, d in zip(profiles.knots(slopes.shape[1]), slopes.unbind(1), strict=True):
        part = (v - start).clamp(0, end - start)
        total = total + value[:, None, None] * part + d[:, None, None] * part.square() / 2
        value, start = value + d * (end - start), end
    total = total + value[:, None, None] * (v - start).clamp(min=0)
    return (s.square() * total).sum((1, 2, 3))


@pytest.mark.parametrize("size", [(9, 12), (8, 8), (1, 3)])
def test_energy_is_the_formula_and_gradient_its_derivative(ridge, size):
    x = images(ridge, size).requires_grad_(True)
    energy = written_out(ridge, x)
    assert torch.allclose(ridge.energy(x.detach(), SIGMA), energy, rtol=1e-10)
    assert bool((energy >= 0).all())
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    assert torch.allclose(ridge.gradient(x.detach(), SIGMA), gradient, atol=1e-10)


def test_strips_do_not_change_the_result(ridge, monkeypatch):
    x = images(ridge, (31, 23))
    whole = ridge.energy_and_gradient(x, SIGMA)
    monkeypatch.setattr(cells, "STRIP_SIZE", 1)
    parts = ridge.energy_and_gradient(x, SIGMA)
    assert torch.allclose(whole[0], parts[0], rtol=1e-12) and torch.allclose(whole[1], parts[1], atol=1e-12)


def extremes(ridge, x, steps=60):
    """The extreme eigenvalues of the Hessian that power iteration finds, from within."""
    hessian, found = ridge.level(x, SIGMA).hessian(x), []
    for shift in (0.0, potential.certify(ridge).smoothness):
        v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        for _ in range(steps):
            v = v / v.flatten(1).norm(dim=1)[:, None, None, None]
            v = shift * v - hessian(v) if shift else hessian(v)
        v = v / v.flatten(1).norm(dim=1)[:, None, None, None]
        found.append((v * hessian(v)).sum((1, 2, 3)))
    return torch.cat(found)


def test_curvature_lies_within_the_bounds(ridge):
    fact = potential.certify(ridge)
    for seed in range(3):
        found = extremes(ridge, images(ridge, seed=seed))
        assert found.min() >= -fact.weak_convexity and found.max() <= fact.smoothness_above
    assert fact.weak_convexity <= ridge.architecture.weak_convexity


def test_bounds_are_nearly_reached():
    """In the linear regime, all features on one segment: the constants are not vacuous, 3 % less would be wrong."""
    ridge = wild_ridge(RidgeArchitecture(filters=4, kernel_size=5, segments=2, weak_convexity=0.9)).double()
    ridge.slopes.copy_(torch.tensor([1.0, -1.0]).expand_as(ridge.slopes))
    ridge.log_scales.fill_(8.0)
    fact = potential.certify(ridge)
    found = extremes(ridge, images(ridge, (32, 32)), steps=300).max()
    assert 0.97 * fact.smoothness_above < found <= fact.smoothness_above


def test_the_proximal_map_and_its_error(ridge):
    y = images(ridge) + 0.1
    exact = ridge.denoise(y, SIGMA, accuracy=1e-9)
    assert torch.allclose(exact.image - y, -ridge.gradient(exact.image, SIGMA), atol=1e-6)
    for accuracy in (1e-1, 1e-2, 1e-3):
        found = ridge.denoise(y, SIGMA, accuracy=accuracy)
        distance = (found.image - exact.image).flatten(1).norm(dim=1)
        assert bool((distance <= found.error + exact.error).all())
        assert bool((found.error <= accuracy * y[0].numel() ** 0.5).all())


def test_the_proximal_map_is_as_lipschitz_as_certified(ridge):
    certificate = stablenet.certificate.certify(ridge).certificate
    fact = potential.certify(ridge)
    assert certificate.is_firmly_nonexpansive == fact.is_convex
    y, z = images(ridge, seed=1), images(ridge, seed=2)
    p, q = (ridge.denoise(w, SIGMA, accuracy=1e-8).image for w in (y, z))
    moved, apart = (p - q).flatten(1).norm(dim=1), (y - z).flatten(1).norm(dim=1)
    assert bool((moved <= certificate.lipschitz * apart + 1e-6).all())
    if fact.is_convex:
        assert bool((((p - q) * (y - z)).flatten(1).sum(1) >= moved.square() - 1e-6).all())


def test_what_breaks_the_hypothesis_is_refused():
    ridge = wild_ridge(SHAPES["weakly-convex"])
    ridge.architecture = dataclasses.replace(ridge.architecture, weak_convexity=0.999)
    object.__setattr__(ridge.architecture, "weak_convexity", 40.0)
    assert potential.certify(ridge).weak_convexity >= 1
    with pytest.raises(NotCertified, match="below 1"):
        stablenet.certificate.certify(ridge)
    with pytest.raises(NotCertified, match="below 1"):
        ridge.denoise(torch.rand(1, 1, 8, 8), 0.1)
    with pytest.raises(NotCertified, match="no potential"):
        potential.certify(torch.nn.ReLU())
    ridge.slopes[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        potential.certify(ridge)


def test_reweighting_touches_the_energy_from_above():
    """R(x) <= R(g) + (<x, B x> - <g, B g>)/2, B the weighted map at g, where phi(v)/v does not increase (`majorizer`)."""
    ridge = wild_ridge(RidgeArchitecture(filters=3, kernel_size=5, weak_convexity=0.5)).double()
    ridge.slopes.copy_(torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0, -1.0]).expand_as(ridge.slopes))
    guide, x = images(ridge, seed=3), images(ridge, seed=4)
    weighted = ridge.level(guide, SIGMA).majorizer(guide)
    assert torch.allclose(weighted(guide), ridge.gradient(guide, SIGMA), atol=1e-10)
    above = ridge.energy(guide, SIGMA) + ((x * weighted(x)) - (guide * weighted(guide))).sum((1, 2, 3)) / 2
    assert bool((ridge.energy(x, SIGMA) <= above + 1e-10).all())


def test_errors_name_the_value():
    ridge = Ridge(RidgeArchitecture(filters=1, kernel_size=3))
    for x, sigma, text in [
        (torch.rand(1, 3, 8, 8), 0.1, "batch, 1"),
        (torch.rand(1, 1, 8, 8), 25.0, "divided by 255"),
        (torch.rand(1, 1, 8, 8).double(), 0.1, "float64"),
        (torch.rand(1, 1, 8, 8), None, "missing"),
    ]:
        for method in (ridge.energy, ridge.gradient, ridge):
            with pytest.raises(ValueError, match=text):
                method(x, sigma)
    with pytest.raises(ValueError, match="no proximal map"):
        RidgeArchitecture(weak_convexity=1.0)
