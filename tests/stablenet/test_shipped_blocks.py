"""The shipped network with a block: certified from its weights on loading, and as accurate in noise as its card says."""

from __future__ import annotations

import pytest
import torch

import stablenet
from stablenet.blocks import Reconstructed
from stablenet.bundled import available, data_path
from stablenet.images.sources import LabeledSource
from stablenet.robustness.noise import NOISES, accuracy_under_noise
from stablenet.weights import pretrained, read_card

NAMES = [name for name in available() if name.startswith("nok-")]


def test_one_is_there():
    assert NAMES == ["nok-fashion-mnist"]


@pytest.mark.parametrize("name", NAMES)
def test_certified_on_loading_with_its_block(name):
    network = pretrained(name)
    card = read_card(data_path(f"weights/{name}.safetensors"))
    assert not network.training and any(type(m) is Reconstructed for m in network.modules())
    assert stablenet.certify(network).lipschitz <= card["certificate"]["lipschitz"] * (1 + 1e-9)
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0), requires_grad=True)
    slope = torch.autograd.grad(network(x)[:, 0].sum(), x)[0].flatten(1).norm(dim=1)
    assert (slope <= card["certificate"]["lipschitz"]).all()


@pytest.mark.parametrize("name", NAMES)
def test_as_accurate_in_noise_as_the_card_says(name):
    stated = read_card(data_path(f"weights/{name}.safetensors"))["accuracy"]
    images = LabeledSource().read(train=True, channels=1).part(9000, None)  # held out in its training
    network = pretrained(name)
    for noise, table in stated.items():
        found = accuracy_under_noise(network, images, NOISES[noise], deviations=tuple(map(float, table)))
        assert found == pytest.approx({float(d): share for d, share in table.items()}, abs=0.004)
