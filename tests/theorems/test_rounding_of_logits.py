"""What rounding does to logits is below its bound, and radii are those of the exact network."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stablenet import certify, tableaus
from stablenet.bundled import available, data_path
from stablenet.certificate import NotCertified
from stablenet.enforcement import Step, Substeps
from stablenet.forward_error import difference_errors, layer
from stablenet.images.labeled import idx_folder
from stablenet.networks import Classifier
from stablenet.robustness.certification import certified_accuracy, certified_predictions, certified_radius, in_double
from stablenet.robustness.report import certified
from stablenet.rounding import dot_product_margin
from stablenet.weights import pretrained
from tests.inventory import CLASSIFIERS, wild_classifier

VARIED = CLASSIFIERS | {
    "kutta-step": replace(CLASSIFIERS["average"], tableau=tableaus.KUTTA3, policy=Step(2)),
    "euler-substeps": replace(CLASSIFIERS["unshuffle"], policy=Substeps()),
}


def images(network: Classifier, count: int, seed: int = 0) -> Tensor:
    a = network.architecture
    return torch.rand(count, a.channels, a.height, a.width, generator=torch.Generator().manual_seed(seed))


def differences(logits: Tensor) -> Tensor:
    logits = logits.double()
    return logits[:, :, None] - logits[:, None]


@pytest.mark.parametrize("name", VARIED)
def test_single_precision_stays_within_its_bound(name):
    network = wild_classifier(VARIED[name]).float().eval()
    x = images(network, 50)
    off = (differences(network(x).detach()) - differences(in_double(network)(x.double()))).abs().amax(0)
    bound = difference_errors(network)
    assert (off <= bound).all()
    assert float(off.max()) > 0 and float(bound.diagonal().abs().max()) == 0


@pytest.mark.parametrize("name", VARIED)
def test_the_bound_grows_with_the_unit_roundoff_and_the_images(name):
    network = wild_classifier(VARIED[name])
    single, double = difference_errors(copy.deepcopy(network).float()), difference_errors(network)
    assert (double <= single * 2.0**-28).all()
    assert (difference_errors(network, norm=100.0) >= double).all()


def test_double_precision_stays_within_its_bound():
    """One dense block and the head, by hand in 60 digits."""
    network = wild_classifier(replace(CLASSIFIERS["average"], stages=((4, 0),), dense_blocks=1, maxmin=False))
    x = images(network, 1, seed=4).double()
    (block,) = [m for m in network.body if hasattr(m, "linear")]
    with mpmath.workdps(60):
        point = mpmath.matrix(network.lift(x - 0.5).flatten().tolist())
        weight = mpmath.matrix(block.linear.weight.tolist())
        features = weight * point + mpmath.matrix(block.bias.tolist())
        active = mpmath.matrix([max(v, mpmath.mpf(0)) for v in features])
        point = point - mpmath.mpf(block.schedule.step_size) * (weight.T * active)
        rows = mpmath.matrix(nn.functional.normalize(network.head.weight).tolist())
        exact = rows * point + mpmath.matrix(network.head.bias.tolist())
        found = network(x)[0].tolist()
        off = np.array([[float(abs((found[i] - found[j]) - (exact[i] - exact[j]))) for j in range(4)] for i in range(4)])
    assert (off <= difference_errors(network).numpy()).all()
    assert 0 < off.max() < 1e-14


def test_the_constant_of_an_inner_product():
    rng = np.random.default_rng(0)
    for n in (3, 100, 3000):
        w, x = rng.standard_normal((2, n)).astype(np.float32)
        total = np.float32(0)
        for product in w * x:
            total = np.float32(total + product)
        exact = math.fsum(float(a) * float(b) for a, b in zip(w, x, strict=True))
        assert abs(float(total) - exact) <= dot_product_margin(n, 2.0**-24) * float(
            np.abs(w.astype(float)) @ np.abs(x.astype(float))
        )
    assert dot_product_margin(2**24, 2.0**-24) == math.inf


@pytest.mark.parametrize("name", [name for name in available() if name.startswith("classifier-")])
def test_the_bound_is_small_for_shipped_classifiers(name):
    network = in_double(pretrained(name))
    off_diagonal = ~torch.eye(network.architecture.classes, dtype=torch.bool)
    bound = (difference_errors(network) / network.pairwise_lipschitz())[off_diagonal]
    assert float(bound.max()) < 5e-8


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_radii_are_those_of_the_exact_network(name):
    """Of float32 weights at images between two classes, where float32 logits take one for the other."""
    network = wild_classifier(CLASSIFIERS[name]).float().eval()
    x = between(network, images(network, 40))
    predictions, radii = certified_predictions(network, x)
    exact = in_double(network)
    logits, constants = exact(x.double()), exact.pairwise_lipschitz()
    margins = logits.gather(1, predictions[:, None]) - logits
    assert (radii <= (margins / constants[predictions].clamp_min(1e-300)).masked_fill(margins == 0, math.inf).amin(1)).all()
    quick = certified_radius(network(x), network.pairwise_lipschitz())
    wrong = network(x).argmax(1) != logits.argmax(1)
    assert (quick[wrong] == 0).all()


def between(network: Classifier, x: Tensor, steps: int = 40) -> Tensor:
    """Images on the way from one to another, as near as float32 comes to where the class changes."""
    low, high = x, x.flip(0)
    for _ in range(steps):
        middle = (low + high) / 2
        same = (network(middle).argmax(1) == network(low).argmax(1)).reshape(-1, 1, 1, 1)
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    return torch.cat([low, high])


def test_clothes_keep_their_certified_accuracy():
    """Rounding costs nothing that is printed."""
    network = pretrained("classifier-fashion-mnist")
    part = idx_folder(data_path("fashion-mnist/train-images-idx3-ubyte.gz").parent).part(0, 600)
    epsilons = (0, 36 / 255, 72 / 255, 108 / 255, 0.5, 1.0)
    predictions, radii = certified(network, part)
    with torch.no_grad():
        logits = network(part.images.float() / 255)
    before = certified_radius(logits, network.pairwise_lipschitz(), rounding=0)
    assert certified_accuracy(radii, predictions, part.labels, epsilons) == pytest.approx(
        certified_accuracy(before, logits.argmax(1), part.labels, epsilons), abs=1e-3
    )
    assert float((radii - before).abs().max()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_logits_in_half_precision_certify_nothing(dtype):
    with pytest.raises(ValueError, match="without autocast"):
        certified_radius(torch.tensor([[1.0, 0.0]], dtype=dtype), torch.ones(2, 2))


def test_autocast_does_not_reach_certified_predictions():
    network = wild_classifier(CLASSIFIERS["average"]).float().eval()
    x = images(network, 5)
    with torch.autocast("cpu", torch.bfloat16):
        inside = certified_predictions(network, x)
    assert torch.equal(inside[1], certified_predictions(network, x)[1])


@pytest.mark.parametrize("rounding", [-1.0, torch.ones(3, 3), math.nan], ids=str)
def test_a_bound_that_is_none_is_refused(rounding):
    with pytest.raises(ValueError, match="rounding must be"):
        certified_radius(torch.tensor([[1.0, 0.0]]), torch.ones(2, 2), rounding=rounding)


def test_what_has_no_bound_is_refused():
    network = wild_classifier(CLASSIFIERS["average"])
    network.body.append(nn.Tanh())
    assert certify(network.body).lipschitz <= 1
    with pytest.raises(NotCertified, match="no rounding bound for .*Tanh.*stablenet.forward_error.layer"):
        difference_errors(network)
    layer(nn.Tanh)(lambda module: lambda size, shape, unit: 4 * unit * size)
    assert (difference_errors(network) >= 0).all()
    del layer._rules[nn.Tanh]
