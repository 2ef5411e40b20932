"""The shipped classifiers: certified from their weights on loading, as good as their cards say, and not refuted by attacks.

STABLENET_DATA names a folder that holds cifar10 (mosaics and labels) and fashion-mnist (idx files); `pytest -m slow` reads it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from stablenet import certify
from stablenet.bundled import available, data_path
from stablenet.images.labeled import LabeledImages, idx_folder
from stablenet.images.photographs import BundledPhotographs
from stablenet.networks import Classifier
from stablenet.robustness.attacks import Attack, attack
from stablenet.robustness.report import certified
from stablenet.robustness.slack import slack_of
from stablenet.training.classifier import EPSILONS, evaluate
from stablenet.weights import pretrained, read_card

NAMES = [name for name in available() if name.startswith("classifier-")]
ROOT = Path(__file__).parents[2]


def stated(name: str) -> dict[float, float]:
    """Certified accuracy at each epsilon on the images that the card names."""
    table = read_card(data_path(f"weights/{name}.safetensors"))["validation"]
    return {e: table[f"certified_{round(255 * e)}"] for e in EPSILONS}


def some_images(network: Classifier, count: int) -> LabeledImages:
    """Images to attack that ship with the package: clothes, or tiles of photographs; the labels are the predictions."""
    a = network.architecture
    if a.channels == 1:
        images = idx_folder(data_path("fashion-mnist/train-images-idx3-ubyte.gz").parent).images[:count]
    else:
        photograph = BundledPhotographs(channels=3, names=("coffee",))[0]
        tiles = photograph.unfold(1, a.height, 3 * a.height).unfold(2, a.width, 3 * a.width).permute(1, 2, 0, 3, 4)
        images = tiles.flatten(0, 1)[:count].contiguous()
    labels = network(images.float() / 255).argmax(1)
    return LabeledImages(images, labels, tuple(map(str, range(a.classes))))


@pytest.mark.parametrize("name", NAMES)
def test_certified_on_loading(name):
    network = pretrained(name, kind="classifier")
    assert not network.training
    assert certify(network.body).lipschitz <= 1
    constants = network.pairwise_lipschitz()
    assert (constants <= 2).all()
    assert read_card(data_path(f"weights/{name}.safetensors"))["certificate"]["lipschitz"] <= 2


@pytest.mark.parametrize("name", NAMES)
def test_no_attack_comes_closer_than_a_radius(name):
    network = pretrained(name)
    images = some_images(network, 24)
    _, radii = certified(network, images)
    found = attack(network, images, Attack(epsilons=(0.2, 0.5, 1.0), steps=20, restarts=1), radii=radii)
    assert torch.isfinite(found.distances).sum() >= 20
    assert 0.2 < float((radii / found.distances).max()) <= 1, "radii as far below the attacks as this tell nothing"


@pytest.mark.parametrize("name", NAMES)
def test_little_slack(name):
    network = pretrained(name)
    measured = slack_of(network, some_images(network, 16), count=16)
    assert 0.7 < measured.jacobian_norm <= measured.lipschitz * (1 + 1e-5)


def test_clothes_as_the_card_says():
    network = pretrained("classifier-fashion-mnist")
    images = idx_folder(data_path("fashion-mnist/train-images-idx3-ubyte.gz").parent).part(0, 2000)
    for epsilon, share in evaluate(network, images).items():
        # training images: no worse than the test images of the card, up to the noise of 2,000
        assert stated("classifier-fashion-mnist")[epsilon] - 0.02 < share < stated("classifier-fashion-mnist")[epsilon] + 0.12


def data() -> Path:
    if "STABLENET_DATA" not in os.environ:
        pytest.skip("STABLENET_DATA is not set")
    return Path(os.environ["STABLENET_DATA"])


@pytest.mark.slow
def test_the_test_images_of_fashion_mnist():
    images = idx_folder(data() / "fashion-mnist", train=False)
    found = evaluate(pretrained("classifier-fashion-mnist"), images)
    assert found == pytest.approx(stated("classifier-fashion-mnist"), abs=2e-4)


@pytest.mark.slow
def test_the_held_out_images_of_cifar10(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from mosaics import Mosaics

    images = Mosaics(data() / "cifar10").read(train=False)
    found = evaluate(pretrained("classifier-cifar10"), images)
    assert found == pytest.approx(stated("classifier-cifar10"), abs=2e-4)
