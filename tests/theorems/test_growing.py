"""A grown denoiser starts where the small one stands, and carries a certificate of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import stablenet
from stablenet.bundled import available
from stablenet.networks import Denoiser
from stablenet.networks.checks import KNOTS
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


def with_idle_blocks(seed: int = 0) -> Denoiser:
    """Six blocks of which the third restarts from the input, the last but one removes nothing, and both come before others."""
    network = wild_denoiser(replace(ANCHORED, blocks=6), seed)
    with torch.no_grad():
        network.anchors[2] = 30.0
        network.log_scales[4] = -30.0
    return network


def test_without_its_idle_blocks_it_is_the_same():
    """At the knots; in between products of interpolated anchors are not interpolated products."""
    network = with_idle_blocks()
    short = network.condensed()
    assert len(short.blocks) == 2 and not short.training
    x = torch.rand(1, network.channels, 21, 26, dtype=torch.float64)
    for level in LEVELS:
        at_knot = level in KNOTS
        torch.testing.assert_close(short(x, level), network(x, level), rtol=0, atol=1e-9 if at_knot else 1e-4)
    certificate = stablenet.certify(short).certificate
    assert certificate.averagedness <= stablenet.certify(network).certificate.averagedness + 1e-9
    assert len(short.condensed().blocks) == 2


@pytest.mark.parametrize("seed", [0, 1])
def test_the_certificate_without_idle_blocks_holds_against_attack(seed):
    short = with_idle_blocks(seed).condensed()
    certificate = stablenet.certify(short).certificate
    found = attack(
        lambda x: short(x, 25 / 255), (1, 17, 23), averagedness=certificate.averagedness, iterations=8, pairs=4, spread=0.3
    )
    assert found.lipschitz <= 1 + 1e-6
    assert found.averagedness <= certificate.averagedness * (1 + 1e-6)


@pytest.mark.parametrize(
    "name", [name for name in available() if name.startswith("denoiser-") and not name.endswith("-guided")]
)
def test_shipped_denoisers_have_no_idle_blocks(name):
    network = pretrained(name)
    assert len(network.condensed().blocks) == len(network.blocks)


def test_lower_anchors_remove_as_much_of_large_features():
    """Thresholds so small that every feature of this image is beyond them: then both are x minus the same sums of signs."""
    network = wild_denoiser(ANCHORED)
    with torch.no_grad():
        network.log_scales.sub_(14)
        network.anchors[:-1].clamp_(min=0.0)
    lowered = network.lowered(0.02)
    anchors = lowered.anchor_weights().detach()
    assert float(anchors[:-1].max()) <= 0.02 + 1e-9
    torch.testing.assert_close(anchors[-1], network.anchor_weights()[-1])
    x = torch.rand(1, network.channels, 21, 26, dtype=torch.float64)
    for level in LEVELS[1:]:
        removed, removed_lowered = x - network(x, level), x - lowered(x, level)
        assert float((removed - removed_lowered).detach().norm() / removed.detach().norm()) < 1e-3


def test_anchors_that_are_low_already_stay():
    network = wild_denoiser(ANCHORED).lowered(0.02)
    torch.testing.assert_close(network.lowered(0.5).anchor_weights(), network.anchor_weights())


def test_a_relaxed_composition_has_no_anchors_to_lower():
    composed = wild_denoiser(ARCHITECTURES["composed"])
    for change in (composed.condensed, lambda: composed.lowered(0.1)):
        with pytest.raises(ValueError, match="has no anchors"):
            change()
