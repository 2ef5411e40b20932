"""The shipped weights give the PSNR that their cards state: four bundled photographs always, the test sets where they are.

STABLENET_DATA names a folder that holds bsd68 and cbsd68 (the originals, 68 images each); `pytest -m slow` reads it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torchvision.transforms import functional as transforms

import stablenet
from stablenet import potential
from stablenet.bundled import available, data_path
from stablenet.evaluation import OwnGuide, evaluate
from stablenet.images.photographs import BundledPhotographs, FolderImages, add_noise
from stablenet.networks.proximal_point import proximal_map
from stablenet.weights import pretrained, read_card
from tests.attack import attack

PHOTOGRAPHS = {1: ("camera", "coins", "brick", "grass"), 3: ("astronaut", "coffee", "chelsea", "rocket")}
TOLERANCE = 0.02
GUIDED = [name for name in available() if name.endswith("-guided")]
DENOISERS = [name for name in available() if name.startswith("denoiser-") and name not in GUIDED]
SMALL = [name for name in DENOISERS if name.endswith("-small")]
MIDDLE = 160
MIDDLES = {
    "denoiser-color": 30.8801,
    "denoiser-color-small": 30.8037,
    "denoiser-gray": 27.7942,
    "denoiser-gray-medium": 27.7701,
    "denoiser-gray-small": 27.6859,
}


def stated(name: str, dataset: str) -> dict[float, float]:
    table = read_card(data_path(f"weights/{name}.safetensors"))["psnr"][dataset]
    return {float(level) / 255: value for level, value in table.items()}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in SMALL else pytest.mark.slow) for n in DENOISERS])
def test_four_photographs(name):
    network = pretrained(name)
    table = stated(name, "bundled")
    level = 25 / 255
    found = evaluate(network, BundledPhotographs(channels=network.channels, names=PHOTOGRAPHS[network.channels]), (level,))
    assert found[level] == pytest.approx(table[level], abs=TOLERANCE)


@pytest.mark.parametrize("name", DENOISERS)
def test_the_middles_of_four_photographs(name):
    """As they were when the whole photographs gave what the card states: a tenth of the pixels, a tenth of the tolerance."""
    network = pretrained(name)
    whole = BundledPhotographs(channels=network.channels, names=PHOTOGRAPHS[network.channels])
    middles = [transforms.center_crop(image, [MIDDLE, MIDDLE]) for image in whole]
    level = 25 / 255
    assert evaluate(network, middles, (level,))[level] == pytest.approx(MIDDLES[name], abs=TOLERANCE / 10)


@pytest.mark.parametrize("name", DENOISERS)
def test_certified_averaged_and_the_identity_without_noise(name):
    network = pretrained(name)
    certificate = stablenet.certify(network).certificate
    assert certificate.lipschitz <= 1 and certificate.averagedness < 1
    x = torch.rand(1, network.channels, 33, 40, generator=torch.Generator().manual_seed(0))
    assert float((network(x, 0.0) - x).abs().max()) < 1e-3


RIDGES = [name for name in available() if name.startswith("ridge-")]
RIDGE_MIDDLES = {"ridge-color": 31.1621, "ridge-convex-gray": 28.4849, "ridge-gray": 29.2323}


@pytest.mark.parametrize("name", RIDGES)
def test_the_potentials_are_proved_and_denoise(name):
    """Nonnegative, with a proximal map; the middle of the first photograph at 25/255 as it was when the card was written."""
    network = pretrained(name)
    fact = potential.certify(network)
    assert fact.weak_convexity < 1 and fact.is_convex == ("convex" in name)
    whole = BundledPhotographs(channels=network.channels, names=PHOTOGRAPHS[network.channels][:1])
    middle = transforms.center_crop(whole[0], [MIDDLE, MIDDLE])
    for image in (torch.rand(2, network.channels, 31, 18), middle[None] / 255):
        energy = network.energy(image, 0.1)
        assert energy.shape == (len(image),) and (energy >= 0).all()
    level = 25 / 255
    assert evaluate(network, [middle], (level,))[level] == pytest.approx(RIDGE_MIDDLES[name], abs=TOLERANCE / 10)


@pytest.mark.parametrize("name", GUIDED)
def test_the_guided_ones_are_proved_for_every_guide_and_see_more_than_their_potential(name):
    network = pretrained(name)
    whole = BundledPhotographs(channels=network.channels, names=PHOTOGRAPHS[network.channels][:1])
    middle, level = transforms.center_crop(whole[0], [MIDDLE, MIDDLE]), 25 / 255
    for guide in (middle[None] / 255, 1e6 * torch.randn(1, network.channels, 21, 18)):
        certificate = stablenet.certify(network.prepare(guide, level)).certificate
        assert certificate.is_firmly_nonexpansive
    guided, plain = (evaluate(n, [middle], (level,))[level] for n in (OwnGuide(network), network.ridge))
    assert guided > plain + 0.2


def counted(function):
    """A function, and a list that grows with each of its calls."""
    calls = []
    return lambda x: (calls.append(x.shape), function(x))[1], calls


@pytest.mark.parametrize("name", RIDGES)
def test_their_proximal_maps_take_few_gradients(name):
    network = pretrained(name)
    whole = BundledPhotographs(channels=network.channels, names=PHOTOGRAPHS[network.channels][:1])
    clean = transforms.center_crop(whole[0], [64, 64])[None] / 255
    for level in (5 / 255, 25 / 255, 50 / 255):
        noisy = add_noise(clean, level, torch.Generator().manual_seed(0))
        gradient, calls = counted(network.level(noisy, level).gradient)
        found = proximal_map(gradient, noisy, potential.certify(network), accuracy=1e-3)
        assert float(found.error) <= 1e-3 * clean.numel() ** 0.5
        assert len(calls) < 100


class Frugal(torch.nn.Module):
    """A block that recomputes what its gradient needs: a 128-pixel attack in float64 would hold gigabytes otherwise."""

    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.block, self.linear = block, block.linear

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.block, x, scale, use_reentrant=False)


def search(name: str, side: int, level: float, iterations: int) -> None:
    """Gradient ascent around a photograph: no pair of images may beat the certificate, computed in the same run."""
    network = pretrained(name).double()
    certificate = stablenet.certify(network).certificate
    network.blocks = torch.nn.ModuleList(map(Frugal, network.blocks))
    image = BundledPhotographs(channels=network.channels, names=PHOTOGRAPHS[network.channels][:1])[0]
    found = attack(
        lambda x: network(x, level),
        (network.channels, side, side),
        averagedness=certificate.averagedness,
        iterations=iterations,
        pairs=2,
        spread=level,
        distances=(0.1, 5.0),
        around=image[None, :, :side, :side].double() / 255,
    )
    assert found.lipschitz <= certificate.lipschitz * (1 + 1e-6)
    assert found.averagedness <= certificate.averagedness * (1 + 1e-6)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("side", "level", "iterations"), [(64, 50 / 255, 4), (64, 0.02, 3), (128, 25 / 255, 2)])
def test_no_search_beats_the_certificate(name, side, level, iterations):
    search(name, side, level, iterations)


@pytest.mark.parametrize("name", [name for name in DENOISERS if name not in SMALL])
def test_no_short_search_beats_the_certificate_of_a_large_network(name):
    search(name, 48, 25 / 255, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.parametrize(
    ("side", "iterations", "levels"), [(64, 20, (5, 25, 50)), (128, 10, (5, 50)), (256, 5, (25,)), (512, 2, (25,))]
)
def test_no_long_search_beats_the_certificate(name, side, iterations, levels):
    for level in levels:
        search(name, side, level / 255, iterations)


@pytest.mark.slow
@pytest.mark.parametrize("name", DENOISERS)
def test_the_test_sets(name):
    root = os.environ.get("STABLENET_DATA")
    dataset = "BSD68" if "-gray" in name else "CBSD68"
    if root is None:
        pytest.skip("STABLENET_DATA is not set: give the folder that holds bsd68 and cbsd68")
    network, table = pretrained(name), stated(name, dataset)
    images = FolderImages([Path(root) / dataset.lower()], channels=network.channels)
    assert len(images) == 68
    found = evaluate(network, images, tuple(table))
    for level, value in table.items():
        assert found[level] == pytest.approx(value, abs=TOLERANCE)
