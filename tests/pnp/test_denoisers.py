"""A prepared denoiser is evaluated, frozen and certified; relaxation makes it as averaged as its certificate says."""

from __future__ import annotations

import deepinv
import pytest
import torch
from torch import Tensor, nn

import pnp
import stablenet.certificate
from pnp.guarantees import largest_relaxation

LEVEL = 0.1


def attack(denoise: object, x: Tensor, *, steps: int = 60) -> float:
    """The largest |Tx - Ty|^2 - <Tx - Ty, x - y> relative to |x - y|^2 found by gradient ascent; firm means <= 0."""
    generator = torch.Generator().manual_seed(0)
    x = x.clone().requires_grad_(True)
    y = (x.detach() + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype)).requires_grad_(True)
    worst, optimizer = -torch.inf, torch.optim.Adam([x, y], lr=0.02)
    for _ in range(steps):
        change, moved = denoise(x) - denoise(y), x - y
        excess = ((change**2).sum() - (change * moved).sum()) / (moved**2).sum()
        worst = max(worst, float(excess.detach()))
        optimizer.zero_grad()
        (-excess).backward()
        optimizer.step()
    return worst


def test_relaxation_makes_an_averaged_denoiser_firmly_nonexpansive(make_denoiser: type, image: Tensor) -> None:
    strong = make_denoiser(step=0.24)
    weight = largest_relaxation(stablenet.certificate.certify(strong).certificate)
    relaxed = pnp.Relaxed(strong, weight)
    assert stablenet.certificate.certify(relaxed).certificate.is_firmly_nonexpansive
    checkerboard = torch.arange(12)[:, None] + torch.arange(12)
    x = (0.01 * (checkerboard % 2) + image[..., :12, :12]).double()
    assert attack(lambda v: relaxed(v, LEVEL), x) <= 1e-9
    assert attack(lambda v: strong(v, LEVEL), x) > 0.01


def test_the_shrinkage_of_these_tests_is_firm(denoiser: nn.Module, image: Tensor) -> None:
    assert attack(lambda v: denoiser(v, LEVEL), image[..., :12, :12].double()) <= 1e-9


def test_a_prior_is_an_evaluated_and_frozen_copy(denoiser: nn.Module) -> None:
    denoiser.train()
    prior = pnp.prior(denoiser)
    assert not prior.module.training
    assert not any(p.requires_grad for p in prior.module.parameters())
    assert denoiser.training and all(p.requires_grad for p in denoiser.parameters())


def test_the_deepinv_wrapper_stays_evaluated_and_frozen_inside_a_prior(denoiser: nn.Module) -> None:
    wrapped = pnp.DeepinvDenoiser(denoiser)
    assert isinstance(wrapped, deepinv.models.Denoiser)
    prior = deepinv.optim.PnP(wrapped)
    prior.train()
    assert not wrapped.training and not denoiser.training
    assert not any(p.requires_grad for p in prior.parameters())
    ours, theirs = stablenet.certificate.certify(denoiser), stablenet.certificate.certify(wrapped)
    assert theirs.certificate == ours.certificate


def test_a_gray_denoiser_treats_channels_as_images(denoiser: nn.Module) -> None:
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.02, 0.1])
    together = pnp.Channelwise(denoiser)(x, sigma)
    for b in range(2):
        for c in range(3):
            alone = denoiser(x[b : b + 1, c : c + 1], float(sigma[b]))
            torch.testing.assert_close(together[b : b + 1, c : c + 1], alone)
    prepared = pnp.prepare(denoiser, channels=3)
    assert prepared.certificate == stablenet.certificate.certify(denoiser).certificate


def test_a_color_denoiser_refuses_gray(denoiser: nn.Module) -> None:
    denoiser.channels = 3
    with pytest.raises(ValueError, match="takes 3 channels but the image has 1"):
        pnp.prepare(denoiser, channels=1)


def test_a_denoiser_without_certificate_is_refused() -> None:
    with pytest.raises(pnp.Refused, match="certificate"):
        pnp.prepare(nn.GELU(), channels=1)
    with pytest.raises(TypeError, match="torch.nn.Module"):
        pnp.prepare(lambda x, s: x, channels=1)


@pytest.mark.parametrize("level", [0.3, -0.1, float("nan")])
def test_levels_outside_the_range_of_the_denoiser_are_errors(denoiser: nn.Module, level: float) -> None:
    with pytest.raises(ValueError, match=r"denoiser_noise_level=.*\[0, 0.1961\]"):
        pnp.prepare(denoiser, channels=1).at(level)
