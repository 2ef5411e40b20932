"""A grown denoiser starts where the small one stands, and carries a certificate of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import stablenet
from stablenet.networks import Denoiser
from stablenet.weights import pretrained
from tests.attack import attack
from tests.inventory import ARCHITECTURES, wild_denoiser

ANCHORED = ARCHITECTURES["anchored"]
LEVELS = (0.0, 3 / 255, 25 / 255, 50 / 255)


def test_larger_kernels_alone_change_no_more_than_the_certified_bound_of_their_norm():
    small = wild_denoiser(ANCHORED)
    large = small.grown(replace(ANCHORED, kernel_size=ANCHORED.kernel_size + 4))
    assert type(large) is Denoiser and not large.training
    x = torch.rand(1, small.channels, 30, 22, dtype=torch.float64)
    for level in LEVELS:
        torch.testing.assert_close(large(x, level), small(x, level), rtol=0, atol=1e-4)


def test_splitting_divides_thresholds_and_composes_anchors():
    small = wild_denoiser(ANCHORED)
    large = small.grown(replace(ANCHORED, blocks=3 * ANCHORED.blocks))
    torch.testing.assert_close(large.log_scales.exp()[:3].sum(0), small.log_scales.exp()[0])
    kept = (1 - large.anchor_weights()).reshape(ANCHORED.blocks, 3, -1)
    torch.testing.assert_close(kept.prod(1)[:-1], 1 - small.anchor_weights()[:-1])


def test_a_trained_network_denoises_as_well_after_growing():
    from stablenet.evaluation import evaluate
    from stablenet.images.photographs import BundledPhotographs

    small = pretrained("denoiser-gray-small")
    large = small.grown(replace(small.architecture, blocks=2 * small.architecture.blocks, kernel_size=11))
    images = torch.utils.data.Subset(BundledPhotographs(channels=1), [0])
    before, after = (evaluate(network.eval(), images, (25 / 255,))[25 / 255] for network in (small, large))
    assert after > before - 0.1


@pytest.mark.parametrize("averagedness", [0.4, ANCHORED.averagedness, 0.99])
def test_its_certificate_holds_against_attack(averagedness):
    small = wild_denoiser(ANCHORED, 2)
    large = small.grown(replace(ANCHORED, blocks=2 * ANCHORED.blocks, averagedness=averagedness))
    certificate = stablenet.certify(large).certificate
    assert certificate.lipschitz <= 1
    assert certificate.averagedness <= averagedness
    found = attack(
        lambda x: large(x, 25 / 255), (1, 17, 23), averagedness=certificate.averagedness, iterations=8, pairs=4, spread=0.3
    )
    assert found.lipschitz <= 1 + 1e-6
    assert found.averagedness <= certificate.averagedness * (1 + 1e-6)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"blocks": ANCHORED.blocks * 2 + 1}, "multiple"),
        ({"kernel_size": ANCHORED.kernel_size + 1}, "even"),
        ({"kernel_size": ANCHORED.kernel_size + 2}, "at scale 2"),
        ({"features": ANCHORED.features + 1}, f"features {ANCHORED.features} -> {ANCHORED.features + 1}"),
        ({"channels": 3}, "channels 1 -> 3"),
        ({"anchored": False}, "anchored True -> False"),
    ],
)
def test_shapes_that_cannot_grow(change, text):
    with pytest.raises(ValueError, match=text):
        wild_denoiser(ANCHORED).grown(replace(ANCHORED, **change))
