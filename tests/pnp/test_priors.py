"""A prior is a private copy: the caller's network goes on as it was, and what it was made for is known through wrappers."""

from __future__ import annotations

import copy
from dataclasses import replace

import deepinv
import pytest
import torch
from torch import Tensor, nn

import pnp
import stablenet
from stablenet import blocks, linear
from stablenet.certificate import Certificate, CertificateTree, rule
from stablenet.networks import Symmetrized
from tests.inventory.denoisers import DENOISERS, Shrinkage, SoftThreshold

STOP = pnp.Stop(1e-3, 20)


def test_a_surrounding_training_loop_goes_on(denoiser: Shrinkage, measurement: Tensor, physics: nn.Module) -> None:
    denoiser.train()
    optimizer = torch.optim.SGD(denoiser.parameters(), lr=0.1)
    pnp.solve(pnp.PGD(), measurement, physics, denoiser, noise_level=0.03, max_iterations=2)
    assert denoiser.training and denoiser.scale.requires_grad and torch.is_grad_enabled()
    denoiser(measurement, 0.01).square().sum().backward()
    before = float(denoiser.scale)
    optimizer.step()
    assert float(denoiser.scale) != before


def test_it_goes_on_after_an_error(denoiser: Shrinkage, measurement: Tensor, physics: nn.Module) -> None:
    denoiser.train()
    with pytest.raises(pnp.Refused):
        pnp.solve(pnp.PGD(step_size=9.0), measurement, physics, denoiser, noise_level=0.03)
    assert denoiser.training and denoiser.scale.requires_grad


def test_a_denoiser_changed_after_planning_is_without_effect(
    denoiser: Shrinkage, measurement: Tensor, physics: nn.Module
) -> None:
    run = pnp.plan(pnp.PGD(), measurement, physics, denoiser, noise_level=0.03, max_iterations=5)
    *_, expected = pnp.iterate(run)
    with torch.no_grad():
        denoiser.scale.fill_(7.0)
    denoiser.register_forward_hook(lambda module, arguments, output: 3 * output)
    *_, again = pnp.iterate(run)
    assert torch.equal(again.estimate, expected.estimate)


@pytest.mark.parametrize("name", DENOISERS)
def test_every_denoiser_can_be_copied(name: str) -> None:
    denoiser = DENOISERS[name]()
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(denoiser)(x, 0.05), denoiser(x, 0.05))
        assert torch.equal(pnp.prior(denoiser).module(x, 0.05), denoiser(x, 0.05))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda d: d,
        lambda d: pnp.Relaxed(d, 0.5),
        pnp.DeepinvDenoiser,
        pnp.Clipped,
        Symmetrized,
        lambda d: pnp.Relaxed(pnp.DeepinvDenoiser(pnp.Clipped(d)), 0.9),
    ],
    ids=["plain", "relaxed", "deepinv", "clipped", "symmetrized", "nested"],
)
def test_the_shipped_gray_denoiser_restores_color_in_every_wrapper(wrap: object) -> None:
    denoiser = wrap(stablenet.pretrained("denoiser-gray-small"))
    assert pnp.priors.accepts.of(denoiser) == pnp.priors.Accepts(1, 50 / 255)
    y = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    solution = pnp.solve(pnp.PGD(), y, deepinv.physics.Denoising(), denoiser, noise_level=0.05, max_iterations=2)
    assert solution.estimate.shape == y.shape
    with pytest.raises(ValueError, match=r"outside the range \[0, 0.1961\]"):
        pnp.solve(pnp.PGD(), y, deepinv.physics.Denoising(), denoiser, noise_level=0.05, denoiser_noise_level=0.5)


def test_what_is_unknown_is_not_one() -> None:
    prior = pnp.prior(SoftThreshold())
    assert prior.accepts == pnp.priors.Accepts(None, None)
    assert prior.at(3.0).noise_level == 3.0
    assert prior.fitted(7) is prior


class Untagged(nn.Module):
    """Certified, and with a second argument that is not a noise level."""

    def forward(self, x: Tensor, scale: float) -> Tensor:
        return x


class Enlarging(nn.Module):
    """Certified, and makes two images of one."""

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        return torch.cat([x, x], 1)


@rule(Untagged, Enlarging)
def _claim(module: nn.Module) -> CertificateTree:
    return CertificateTree("claim", Certificate(1.0, 0.5))


@pytest.mark.parametrize(
    ("denoiser", "message"),
    [
        (lambda: blocks.GradientFlow(linear.Conv2d(1, 4, 3), nn.ReLU()), r"GradientFlow is not a denoiser.*\(x, sigma\)"),
        (lambda: nn.Sequential(blocks.GradientFlow(linear.Conv2d(1, 4, 3), nn.ReLU())), "Sequential is not a denoiser"),
        (Untagged, "Untagged is not a denoiser"),
        (Enlarging, r"Enlarging is not a denoiser: it makes \(1, 2, 48, 48\)"),
        (lambda: pnp.Relaxed(nn.Identity(), 0.5), "could not be called as denoiser"),
    ],
)
def test_what_is_no_denoiser_is_refused_at_planning(
    denoiser: object, message: str, measurement: Tensor, physics: nn.Module
) -> None:
    with pytest.raises(pnp.Refused, match=message):
        pnp.plan(pnp.PGD(), measurement, physics, denoiser().eval(), noise_level=0.03)


def test_a_noise_level_of_8_bit_images_is_refused(measurement: Tensor, physics: nn.Module, denoiser: nn.Module) -> None:
    with pytest.raises(ValueError, match="divide by 255"):
        pnp.solve(pnp.PGD(), measurement, physics, denoiser, noise_level=15)


def test_a_fidelity_without_what_is_needed_is_refused(measurement: Tensor, physics: nn.Module, denoiser: nn.Module) -> None:
    class Smooth:
        def gradient(self, z: Tensor, y: Tensor) -> Tensor:
            return z - y

    problem = replace(pnp.pose(measurement, physics, noise_level=0.03), fidelity=Smooth())
    with pytest.raises(pnp.Refused, match="ADMM is not covered: it needs the prox of the data fidelity, and Smooth has only"):
        pnp.plan(pnp.ADMM(), problem, pnp.prior(denoiser))
    with pytest.raises(pnp.Refused, match="conjugate_prox"):
        pnp.plan(pnp.CondatVu(), problem, pnp.prior(denoiser))
    pnp.plan(pnp.CondatVu(fidelity="smooth"), problem, pnp.prior(denoiser))


def test_the_two_forms_are_not_mixed(measurement: Tensor, physics: nn.Module, denoiser: nn.Module) -> None:
    problem, prior = pnp.pose(measurement, physics, noise_level=0.03), pnp.prior(denoiser)
    long = pnp.solve(pnp.PGD(), problem, prior, stop=STOP)
    short = pnp.solve(pnp.PGD(), measurement, physics, denoiser, noise_level=0.03, tolerance=1e-3, max_iterations=20)
    assert torch.equal(long.estimate, short.estimate)
    for call in (
        lambda: pnp.solve(pnp.PGD(), problem, prior, noise_level=0.03),
        lambda: pnp.solve(pnp.PGD(), problem, prior, denoiser),
        lambda: pnp.solve(pnp.PGD(), measurement, physics, denoiser),
        lambda: pnp.solve(pnp.PGD(), problem, prior, stop=STOP, tolerance=1e-3),
        lambda: pnp.solve(pnp.PGD(), problem, prior, start=measurement, init=measurement),
    ):
        with pytest.raises(TypeError):
            call()
