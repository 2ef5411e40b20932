"""The denoiser is averaged as certified: gradient ascent at every noise level, at sizes that no training saw."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import stablenet
from stablenet.networks import Denoiser, DenoiserArchitecture
from tests.attack import attack
from tests.inventory import ARCHITECTURES, wild_denoiser

SLACK = 1 + 1e-6
LEVELS = (0.0, 1e-4, 7 / 255, 25 / 255, 50 / 255)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("seed", [0, 1])
def test_attack_at_each_noise_level(name, seed):
    network = wild_denoiser(ARCHITECTURES[name], seed)
    certificate = stablenet.certify(network).certificate
    assert certificate.is_averaged
    assert certificate.averagedness <= ARCHITECTURES[name].averagedness
    channels = network.channels
    for level in LEVELS:
        for distances in ((1e-4, 1e-2), (1e-2, 10.0)):
            found = attack(
                lambda x, s=level: network(x, s),
                (channels, 17, 23),
                averagedness=certificate.averagedness,
                iterations=6,
                pairs=4,
                spread=0.3,
                centre=0.5,
                distances=distances,
                seed=seed,
            )
            assert found.lipschitz <= certificate.lipschitz * SLACK, level
            assert found.averagedness <= certificate.averagedness * SLACK, level


@pytest.mark.parametrize("name", ["anchored", "composed"])
def test_attack_on_a_larger_image(name):
    network = wild_denoiser(ARCHITECTURES[name], 5)
    certificate = stablenet.certify(network).certificate
    found = attack(
        lambda x: network(x, 0.1), (1, 64, 48), averagedness=certificate.averagedness, iterations=12, pairs=2, spread=0.2
    )
    assert found.lipschitz <= SLACK
    assert found.averagedness <= certificate.averagedness * SLACK


@pytest.mark.parametrize("name", ["anchored", "composed"])
def test_the_attack_comes_close_where_every_slope_is_one(name):
    """Slopes 1 and a constant image region: a single relaxed Euler block is linear, and its alpha is nearly reached."""
    architecture = replace(ARCHITECTURES[name], blocks=1, averagedness=0.8)
    network = wild_denoiser(architecture)
    with torch.no_grad():
        network.blocks[0].activation.logits.fill_(30.0)
        network.log_scales.fill_(10.0)
        if network.anchors is not None:
            network.anchors.fill_(-30.0)
    alpha = stablenet.certify(network).averagedness
    found = attack(lambda x: network(x, 0.1), (1, 40, 40), averagedness=alpha, iterations=60, pairs=2, distances=(0.01, 0.1))
    assert 0.9 * alpha <= found.averagedness <= alpha * SLACK


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("target", [0.05, 0.5, 0.99])
def test_the_target_is_met_by_construction(name, target):
    network = wild_denoiser(replace(ARCHITECTURES[name], averagedness=target), seed=2)
    assert stablenet.certify(network).averagedness <= target
    if network.anchors is not None:
        with torch.no_grad():
            network.anchors.fill_(-1e4)
        assert 0.99 * target <= stablenet.certify(network).averagedness <= target


def test_anchors_are_bounded_at_every_noise_level_between_the_knots():
    network = wild_denoiser(ARCHITECTURES["anchored"])
    with torch.no_grad():
        network.anchors.copy_(50 * torch.randn_like(network.anchors))
    certificate = stablenet.certify(network).certificate
    assert certificate.averagedness <= 0.5
    for level in torch.linspace(0, 50 / 255, 13).tolist():
        found = attack(lambda x, s=level: network(x, s), (1, 10, 9), averagedness=certificate.averagedness, iterations=4)
        assert found.averagedness <= certificate.averagedness * SLACK


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_noise_level_zero_is_the_identity(name):
    network = wild_denoiser(ARCHITECTURES[name]).float()
    x = torch.rand(2, network.channels, 17, 12)
    torch.testing.assert_close(network(x, 0.0), x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_precisions_and_modes_agree(name):
    network = wild_denoiser(ARCHITECTURES[name])
    x = torch.rand(2, network.channels, 13, 16, dtype=torch.float64)
    with torch.no_grad():
        exact = network(x, 0.1)
    torch.testing.assert_close(network(x, 0.1), exact, rtol=1e-9, atol=1e-9)  # the differentiated spline
    with torch.no_grad():
        torch.testing.assert_close(network.float()(x.float(), 0.1).double(), exact, rtol=1e-4, atol=1e-4)


def test_noise_levels_one_per_image():
    network = wild_denoiser(ARCHITECTURES["anchored"])
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    levels = torch.tensor([0.0, 0.05, 0.19], dtype=torch.float64)
    with torch.no_grad():
        together = network(x, levels)
        apart = torch.cat([network(x[k : k + 1], float(levels[k])) for k in range(3)])
        torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(network(x, 0.05), network(x, torch.tensor([0.05])), rtol=0, atol=1e-7)


def test_output_shape_at_odd_sizes():
    network = Denoiser(ARCHITECTURES["anchored"]).eval()
    for size in ((1, 1), (2, 3), (7, 5), (16, 9)):
        assert network(torch.rand(2, 1, *size), 0.1).shape == (2, 1, *size)


def test_denoising_is_continuous_in_the_noise_level():
    network = wild_denoiser(ARCHITECTURES["anchored"])
    x = torch.rand(1, 1, 12, 12, dtype=torch.float64)
    with torch.no_grad():
        outputs = torch.cat([network(x, s) for s in torch.linspace(0, 50 / 255, 400).tolist()])
    assert float(outputs.diff(dim=0).flatten(1).norm(dim=1).max()) < 0.1 * float(x.norm())


IMAGE = torch.rand(2, 1, 8, 8)


@pytest.mark.parametrize(
    ("x", "sigma", "text"),
    [
        (IMAGE[0], 0.1, r"shape \(batch, 1, height, width\)"),
        (IMAGE.expand(2, 3, 8, 8), 0.1, r"got \(2, 3, 8, 8\)"),
        (IMAGE[:0], 0.1, "not empty"),
        (IMAGE.numpy(), 0.1, "ndarray"),
        (IMAGE.double(), 0.1, "float64.*convert"),
        ((255 * IMAGE).to(torch.uint8), 0.1, "uint8.*scale images"),
        (IMAGE * math.nan, 0.1, "NaN or infinity"),
        (IMAGE / 0, 0.1, "NaN or infinity"),
        (IMAGE, None, "sigma, the noise level, is missing"),
        (IMAGE, -0.1, "sigma must lie in"),
        (IMAGE, 25.0, "divided by 255"),
        (IMAGE, math.nan, "sigma must lie in"),
        (IMAGE, torch.tensor([0.1, math.nan]), "sigma must lie in"),
        (IMAGE, torch.tensor([0.1, 0.1, 0.1]), "one per image"),
        (IMAGE, torch.zeros(0), "one per image"),
    ],
)
def test_bad_input(x, sigma, text):
    network = Denoiser(ARCHITECTURES["anchored"]).eval()
    with pytest.raises(ValueError, match=text):
        network(x, sigma)


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 0},
        {"features": 2.5},
        {"blocks": -1},
        {"segments": 0},
        {"scale": 0},
        {"kernel_size": 4},
        {"averagedness": 0.0},
        {"averagedness": 1.0},
        {"averagedness": math.nan},
        {"max_noise_level": 0.0},
        {"max_noise_level": 25.0},
        {"extra_channels": -1},
    ],
    ids=str,
)
def test_bad_architecture(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))}|odd"):
        Denoiser(DenoiserArchitecture(**change))
