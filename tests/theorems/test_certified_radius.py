"""No point within its certified radius is classified differently, and the constants of pairs of logits hold and are sharp."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stablenet import certify
from stablenet.networks import Classifier
from stablenet.robustness.certification import certified_accuracy, certified_radius
from tests.attack import steepest_gain
from tests.inventory import CLASSIFIERS, wild_classifier


def images(network: Classifier, count: int, seed: int = 0) -> Tensor:
    a = network.architecture
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, a.channels, a.height, a.width, generator=generator, dtype=torch.float64)


def smallest_change(network: Classifier, x: Tensor, steps: int = 60) -> Tensor:
    """For each image the distance of the nearest point found with another class: steps toward the nearest boundary."""
    labels = network(x).argmax(1)
    best = torch.full((len(x),), math.inf, dtype=torch.float64)
    classes = network.architecture.classes
    for target in range(classes):
        moved = x.clone()
        for _ in range(steps):
            moved = moved.detach().requires_grad_()
            logits = network(moved)
            gap = logits.gather(1, labels[:, None])[:, 0] - logits[:, target]
            crossed = (gap < 0).detach() & (labels != target)
            distance = (moved - x).detach().flatten(1).norm(dim=1)
            best = torch.where(crossed & (distance < best), distance, best)
            (slope,) = torch.autograd.grad(gap.sum(), moved)
            size = slope.flatten(1).square().sum(1).clamp_min(1e-18)
            move = ((gap.detach() + 1e-3) / size).reshape(-1, 1, 1, 1) * slope
            moved = moved.detach() - move.clamp(-0.5, 0.5)
    return best


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_no_change_within_the_radius(name):
    network = wild_classifier(CLASSIFIERS[name])
    x = images(network, 12)
    radii = certified_radius(network(x), network.pairwise_lipschitz())
    found = smallest_change(network, x)
    assert torch.isfinite(found).sum() >= 3, "the search is too weak to tell anything"
    assert (found >= radii).all()
    assert (radii[torch.isfinite(found)] / found[torch.isfinite(found)]).max() > 0.02


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_pair_constants_hold_under_ascent(name):
    network = wild_classifier(CLASSIFIERS[name])
    classes, constants, x = network.architecture.classes, network.pairwise_lipschitz(), images(network, 8)
    for i, j in ((0, 1), (classes - 1, 0)):
        found = steepest_gain(lambda x, i=i, j=j: network(x)[:, [i]] - network(x)[:, [j]], x)
        assert 0.01 * float(constants[i, j]) < found <= float(constants[i, j]) * (1 + 1e-9)
    assert steepest_gain(network, x) <= certify(network).lipschitz * (1 + 1e-9)


def test_pair_constants_of_the_head_are_sharp():
    head = wild_classifier(CLASSIFIERS["average"]).head
    rows = torch.nn.functional.normalize(head.weight)
    for i, j in ((0, 1), (2, 3)):
        direction = rows[i] - rows[j]
        step = head(direction[None]) - head(torch.zeros_like(direction)[None])
        assert float(step[0, i] - step[0, j]) == pytest.approx(float(head.pairwise_lipschitz()[i, j] * direction.norm()))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_pairwise_radius_is_never_worse(name):
    network = wild_classifier(CLASSIFIERS[name])
    logits = network(images(network, 30))
    pairwise = certified_radius(logits, network.pairwise_lipschitz())
    single = certified_radius(logits, torch.tensor(certify(network).lipschitz))
    assert (pairwise >= single * (1 - 1e-12)).all()
    if network.architecture.classes > 2:  # of two rows at an obtuse angle both constants are the same
        assert (pairwise > single * 1.001).any()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_body_is_nonexpansive_after_training_mode_and_back(name):
    network = wild_classifier(CLASSIFIERS[name])
    before = network(images(network, 2))
    assert certify(network.body).lipschitz <= 1
    network.train().eval()
    torch.testing.assert_close(network(images(network, 2)), before, rtol=1e-4, atol=1e-4)


def test_ties_have_radius_zero():
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    assert certified_radius(logits, torch.ones(3, 3), rounding=0).tolist() == pytest.approx([0.0, 0.0, 1.0])


def test_certified_accuracy_counts_right_predictions_beyond_epsilon():
    radii, labels = torch.tensor([0.5, 0.1, 0.3, 0.0]), torch.tensor([0, 1, 2, 1])
    table = certified_accuracy(radii, torch.tensor([0, 1, 0, 1]), labels, (0, 0.1, 0.2, 1))
    assert table == {0: 0.75, 0.1: 0.5, 0.2: 0.25, 1: 0.0}


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: certified_radius(torch.zeros(2, 1), torch.tensor(1.0)), "two classes"),
        (lambda: certified_radius(torch.full((1, 2), math.nan), torch.tensor(1.0)), "NaN"),
        (lambda: certified_radius(torch.zeros(1, 2), torch.ones(3, 3)), r"\(2, 2\)"),
        (lambda: certified_radius(torch.zeros(1, 2), torch.tensor(-1.0)), ">= 0"),
        (lambda: certified_accuracy(torch.zeros(1), torch.zeros(1), torch.zeros(1), (36,)), "36/255"),
        (lambda: certified_accuracy(torch.zeros(1), torch.zeros(1), torch.zeros(1), (-0.1,)), ">= 0"),
        (lambda: certified_accuracy(torch.zeros(2), torch.zeros(1), torch.zeros(1), (0,)), "2 radii"),
    ],
)
def test_bad_input_is_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()
