"""Normalized margins: their largest value, that of noisy 2-XOR, their rise with weak regularization (M3 to M6)."""

from __future__ import annotations

import itertools
import math
from functools import cache

import cvxpy
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stablenet.convex import gates
from stablenet.convex.toys import noisy_xor, xor_population
from stablenet.robustness.margins import (
    MaximumMargin,
    NotHomogeneous,
    homogeneity,
    margin_curve,
    max_margin,
    normalized_margin,
)

DOUBLE = torch.float64


def layers(d: int, *widths: int, seed: int = 0, outputs: int = 1) -> nn.Sequential:
    """Random dense layers with ReLU between, without biases, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = [d, *widths, outputs]
        dense = [nn.Linear(a, b, bias=False, dtype=DOUBLE) for a, b in itertools.pairwise(sizes)]
        return nn.Sequential(*[part for layer in dense for part in (layer, nn.ReLU())][:-1])


def instance(n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = 2 * torch.randint(2, (n,), generator=generator) - 1
    y[:2] = torch.tensor([1, -1])
    return torch.randn(n, d, generator=generator, dtype=DOUBLE), y.to(DOUBLE)


def climbed(network: nn.Sequential, X: Tensor, y: Tensor, steps: int = 250) -> float:
    """The largest normalized margin that gradient steps on its soft minimum find."""
    optimizer, best = torch.optim.Adam(network.parameters(), lr=0.03), -math.inf
    for step in range(steps):
        size = sum(p.square().sum() for p in network.parameters())
        margins = y * network(X)[:, 0] / size
        best = max(best, float(margins.detach().min()))
        optimizer.zero_grad()
        sharpness = 20 * 100 ** (step / steps)
        (torch.logsumexp(-sharpness * margins, 0) / sharpness).backward()
        optimizer.step()
    return best


def test_the_margin_does_not_depend_on_the_scale():
    for network, degree in ((layers(4, 5), 2), (layers(4, 5, 6, 3), 4), (layers(4), 1)):
        X, y = instance(7, 4)
        before = normalized_margin(network, X, y)
        size = sum(float(p.square().sum()) for p in network.parameters()) ** 0.5
        assert homogeneity.of(network)(0) == degree
        assert before == pytest.approx(float((y * network(X)[:, 0]).min().detach()) / size**degree, rel=1e-12)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter *= 3
        assert normalized_margin(network, X, y) == pytest.approx(before, rel=1e-12)


def test_a_bias_of_the_first_layer_is_homogeneous_and_several_outputs_have_margins():
    X, y = instance(7, 4)
    network = layers(4, 5, outputs=3)
    network[0] = nn.Linear(4, 5, dtype=DOUBLE)
    labels = torch.arange(7) % 3
    f = network(X).detach()
    least = min(float(f[i, k] - max(f[i, j] for j in range(3) if j != k)) for i, k in enumerate(labels.tolist()))
    size = sum(float(p.square().sum()) for p in network.parameters())
    assert normalized_margin(network, X, labels) == pytest.approx(least / size, rel=1e-12)
    assert normalized_margin(network.float(), X.float(), labels) == pytest.approx(least / size, rel=1e-5)


@pytest.mark.parametrize("widths", [(6,), (5, 4), (4, 4, 3)])
def test_a_margin_is_a_radius(widths):
    """Within gamma k^(k/2) of a point nothing changes its class, and steepest descent on y f does not find otherwise."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(60, 3, generator=generator, dtype=DOUBLE)
    network = layers(3, *widths, seed=1)
    X = X[network(X)[:, 0].detach().abs() > 1e-6]
    y = network(X)[:, 0].detach().sign()
    degree, size = len(widths) + 1, sum(float(p.square().sum()) for p in network.parameters()) ** 0.5
    margins = y * network(X)[:, 0].detach() / size**degree
    assert normalized_margin(network, X, y) == pytest.approx(float(margins.min()), rel=1e-12)
    radius = (margins * degree ** (degree / 2))[:, None]
    z = X.clone()
    for _ in range(30):
        z.requires_grad_()
        (slope,) = torch.autograd.grad((y * network(z)[:, 0]).sum(), z)
        z = (z - radius / 10 * slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-300)).detach()
        z = X + (z - X) * (radius / (z - X).norm(dim=1, keepdim=True).clamp_min(1e-300)).clamp_max(1)
    assert bool((y * network(z)[:, 0] >= -1e-12).all()) and float((z - X).norm(dim=1).max()) > 0.9 * float(radius.min())


def test_that_radius_is_sharp():
    network = MaximumMargin(0.0, None, torch.tensor([[1.0, 0.0]], dtype=DOUBLE), torch.ones(1, dtype=DOUBLE)).network()
    x = torch.tensor([[0.7, 0.0]], dtype=DOUBLE)
    assert 2 * normalized_margin(network, x, torch.ones(1)) == pytest.approx(0.7)
    assert float(network(torch.zeros(1, 2, dtype=DOUBLE))) == 0


@pytest.mark.parametrize("d", [2, 3, 4])
def test_noisy_xor_has_the_margin_one_eighth(d):
    X, y = xor_population(d, dtype=DOUBLE)
    four = MaximumMargin(0.0, None, torch.eye(d, dtype=DOUBLE)[[0, 0, 1, 1]], torch.tensor([1, 1, -1, -1], dtype=DOUBLE) / 4)
    four.neurons[[1, 3]] *= -1
    assert normalized_margin(four.network(), X, y) == pytest.approx(1 / 8, rel=1e-12)
    for width in (4, 12):
        assert climbed(layers(d, width), X, y) <= 1 / 8 + 1e-12
    w = torch.randn(4000, d, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    w[:2000, 2:] /= 20
    mean = (y @ torch.relu(X @ w.T)).abs() / len(y) / w.norm(dim=1)  # the dual weights 1/n price no neuron above 1/4
    assert 0.2 < float(mean.max()) <= 1 / 4 + 1e-12
    if d <= 3:
        found = max_margin(X, y)
        assert found.margin == pytest.approx(1 / 8, rel=1e-9) and 0 <= found.upper_bound - 1 / 8 <= 1e-9


def test_few_points_have_larger_margins():
    """The bound is of the distribution: a draw without all signs of its noise can be separated by it."""
    X, y = noisy_xor(6, 8, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    assert max_margin(X, y).margin > 0.2


@cache
def conic(n: int, d: int) -> float:
    """gamma_l1/2 by the program over cells: v_D, w_D in the cone of their cell, sum |v_D| + |w_D| <= 1."""
    X, y = (part.numpy() for part in instance(n, d))
    masks = {tuple(row) for row in (np.random.default_rng(0).standard_normal((20_000, d)) @ X.T >= 0)}
    value, sizes, conditions = 0, [], []
    for mask in masks:
        cone = np.where(mask, 1.0, -1.0)[:, None] * X
        for sign in (1, -1):
            v = cvxpy.Variable(d)
            conditions.append(cone @ v >= 0)
            value, sizes = value + sign * (np.array(mask)[:, None] * X) @ v, [*sizes, cvxpy.norm(v)]
    least = cvxpy.Variable()
    problem = cvxpy.Problem(cvxpy.Maximize(least), [*conditions, cvxpy.multiply(y, value) >= least, sum(sizes) <= 1])
    return float(problem.solve(solver=cvxpy.CLARABEL)) / 2


@pytest.mark.parametrize(("n", "d"), [(5, 2), (8, 3)])
def test_the_largest_margin_is_that_of_the_conic_program(n, d):
    X, y = instance(n, d)
    found = max_margin(X, y)
    assert found.margin == pytest.approx(conic(n, d), rel=1e-6)
    assert found.margin <= found.upper_bound <= found.margin * (1 + 1e-7)
    assert normalized_margin(found.network(), X, y) == pytest.approx(found.margin, rel=1e-12)
    assert len(found.outputs) <= n  # a vertex: the width n is enough
    assert float(found.outputs.abs().sum()) == pytest.approx(1) and bool((found.neurons.norm(dim=1) - 1).abs().max() < 1e-12)


def test_the_largest_margin_rises_with_the_width_up_to_it():
    """gamma*_m <= gamma*: no network found by climbing is above, wide ones come near, one neuron is at most 0."""
    X, y = instance(5, 2)
    bound = max_margin(X, y).upper_bound
    best = {m: max(climbed(layers(2, m, seed=seed), X, y) for seed in range(3)) for m in (1, 5, 10)}
    assert all(value <= bound for value in best.values())
    assert best[1] <= 0 < best[5] and max(best.values()) > 0.95 * bound


def test_fewer_patterns_give_a_lower_value_and_no_bound():
    X, y = instance(8, 3)
    every = gates.enumerate(X).patterns
    whole = max_margin(X, y, patterns=every)
    assert whole.margin == pytest.approx(max_margin(X, y).margin, rel=1e-7)  # the 2^n have no more than these cells
    part = max_margin(X, y, patterns=every[::4], complete=False)
    assert part.upper_bound is None and part.margin < 0.999 * whole.margin


def test_weak_regularization_reaches_the_largest_margin_from_below():
    X, y = instance(8, 3)
    best = max_margin(X, y)
    curve = list(margin_curve(X, y, [1e-2, 1e-4, 1e-6, 1e-9]))
    for found in curve:
        assert found.gap < 1e-5
        assert best.upper_bound - math.log(2 * len(y)) / found.size <= found.margin <= best.upper_bound
    assert curve[-1].margin > 0.95 * best.margin and curve[0].margin < 0.5 * best.margin
    assert [found.size for found in curve] == sorted(found.size for found in curve)


def test_the_curve_is_of_global_minima():
    X, y = instance(6, 2)
    (found,) = margin_curve(X, y, [1e-2])
    network = layers(2, 30)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for step in range(1500):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 1500)
        size = sum(p.square().sum() for p in network.parameters())
        loss = nn.functional.softplus(-y * network(X)[:, 0]).mean() + 1e-2 * size
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(size.detach()) == pytest.approx(found.size, rel=2e-2)
    assert normalized_margin(network, X, y) == pytest.approx(found.margin, rel=2e-2)


@pytest.mark.parametrize(
    ("network", "text"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)), "bias behind the first layer"),
        (nn.Sequential(nn.Linear(4, 3), nn.Tanh()), "no degree of homogeneity for .*Tanh"),
        (nn.Flatten(), "no weights"),
    ],
)
def test_what_has_no_normalized_margin_is_refused(network, text):
    with pytest.raises(NotHomogeneous, match=text):
        normalized_margin(network, *(part.float() for part in instance(5, 4)))


def test_bad_points_and_labels_are_refused():
    X, y = instance(5, 4)
    network = layers(4, 3)
    for bad, labels, text in (
        (X[:4], y, "one row a label"),
        (X * math.nan, y, "finite"),
        (X, y * 2, "labels must be 1 and -1"),
    ):
        with pytest.raises(ValueError, match=text):
            normalized_margin(network, bad, labels)
        with pytest.raises(ValueError, match="finite points|labels must be 1 and -1"):
            max_margin(bad, labels)
    with pytest.raises(ValueError, match="need integer labels in 0..2"):
        normalized_margin(layers(4, 3, outputs=3), X, torch.full((5,), 3))
    with torch.no_grad():
        network[0].weight.zero_(), network[2].weight.zero_()
    with pytest.raises(ValueError, match="a direction is needed"):
        normalized_margin(network, X, y)


def test_what_has_no_largest_margin_is_refused():
    X, y = instance(5, 4)
    twice, opposite = torch.cat([X, X[:1]]), torch.cat([y, -y[:1]])
    for points, labels, text in (
        (twice, opposite, "separates the points"),
        (torch.zeros(2, 3), torch.tensor([1.0, -1.0]), "separates the points"),
        (torch.randn(13, 2), torch.ones(13), "all 2.13 patterns are too many"),
    ):
        with pytest.raises(ValueError, match=text):
            max_margin(points, labels)
    with pytest.raises(ValueError, match="patterns must be"):
        max_margin(X, y, patterns=torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="weights must be positive"):
        list(margin_curve(X, y, [0.0]))
    with pytest.raises(ValueError, match="the best network is 0: take one below"):
        list(margin_curve(X, y, [100.0]))
