"""Averagedness and nonexpansiveness of a step: closed forms, then gradient ascent on every tableau, activation and map."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import stablenet
from stablenet import tableaus
from stablenet.enforcement import Schedule
from stablenet.spectral import power_iteration
from tests.attack import attack
from tests.inventory import ACTIVATIONS, CONTRACTIVE, MAPS, block

SLACK = 1 + 1e-6


def _name(tableau: object) -> str:
    return getattr(tableau, "name", "")


@given(st.floats(1e-6, 2.0))
def test_euler_is_z_over_2(z):
    assert tableaus.EULER.averagedness(z) == pytest.approx(z / 2, rel=1e-14)


@pytest.mark.parametrize("tableau", [tableaus.HEUN, tableaus.RK4, *map(tableaus.ssprk2, (2, 3, 5))], ids=_name)
def test_z_over_2_plus_z(tableau):
    for z in np.linspace(0.01, 2 * tableau.circle_contractivity_radius, 9):
        assert tableau.averagedness(z) == pytest.approx(z / (2 + z), rel=1e-14)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_euler_substeps(n):
    for z in np.linspace(0.01, 2 * n, 9):
        assert tableaus.euler_substeps(n).averagedness(z) == pytest.approx(z / (2 + z - z / n), rel=1e-13)


def test_ssprk3_values():
    assert tableaus.SSPRK3.averagedness(1.0) == pytest.approx(0.364, abs=5e-4)
    assert tableaus.SSPRK3.averagedness(1.5) == pytest.approx(0.511, abs=5e-4)
    assert tableaus.SSPRK3.averagedness(2.0) == pytest.approx(2 / 3, rel=1e-12)


@pytest.mark.parametrize("tableau", CONTRACTIVE, ids=_name)
def test_formula_in_floating_point(tableau):
    """kappa = 1/(w^T (S + 2/z I)^(-1) w), alpha = 1/(1 + kappa), by a dense solve; and alpha increases with z."""
    a, b = np.array(tableau.a, dtype=float), np.array(tableau.b, dtype=float)
    m, w = np.diag(b) @ a + a.T @ np.diag(b) - np.outer(b, b), np.sqrt(b)
    s, values = m / np.outer(w, w), []
    for z in np.linspace(0.05, 1.99 * tableau.circle_contractivity_radius, 7):
        kappa = 1 / (w @ np.linalg.solve(s + 2 / z * np.eye(len(b)), w))
        values.append(tableau.averagedness(z))
        assert values[-1] == pytest.approx(1 / (1 + kappa), rel=1e-9)
    assert values == sorted(values)


@pytest.mark.parametrize("tableau", CONTRACTIVE, ids=_name)
def test_scalar_linear_steps_stay_within_alpha(tableau):
    """The linear field -l x, 0 <= l <= 1, is one of those that the theorem covers: x -> R(-z l) x must be averaged."""
    a, b = np.array(tableau.a, dtype=float), np.array(tableau.b, dtype=float)
    for z in np.linspace(0.1, 2 * tableau.circle_contractivity_radius, 12):
        alpha = tableau.averagedness(z)
        for w in z * np.linspace(0, 1, 101):
            factor = 1 - w * b @ np.linalg.solve(np.eye(len(b)) + w * a, np.ones(len(b)))
            assert factor >= 1 - 2 * alpha - 1e-12
            assert factor <= 1 + 1e-12


@pytest.mark.parametrize("z", [-1e-9, math.nan, math.inf])
def test_bad_z(z):
    with pytest.raises(ValueError, match="finite number >= 0"):
        tableaus.HEUN.averagedness(z)


@pytest.mark.parametrize("tableau", CONTRACTIVE, ids=_name)
def test_beyond_the_circle_is_refused(tableau):
    z = 2 * tableau.circle_contractivity_radius * (1 + 1e-12)
    with pytest.raises(ValueError, match="z must lie in"):
        tableau.averagedness(z)
    assert tableau.lipschitz(z) > 1 or tableau.stages == 1  # Euler's max(1, z - 1) rounds back to 1 + 2e-12
    assert tableau.lipschitz(2 * z) > 1


@pytest.mark.parametrize("linear", MAPS)
@pytest.mark.parametrize("tableau", CONTRACTIVE, ids=_name)
def test_attack(tableau, linear):
    shape = MAPS[linear][1]
    for k, activation in enumerate(ACTIVATIONS):
        regime = "linear" if (k + len(linear)) % 2 else "random"
        flow = block(tableau, activation, linear, regime=regime)
        certificate = stablenet.certify(flow).certificate
        assert certificate.is_nonexpansive
        assert flow.z == pytest.approx(2 * tableau.circle_contractivity_radius, rel=2e-3)
        found = attack(flow, shape, averagedness=certificate.averagedness, iterations=8, pairs=4, spread=0.3)
        assert found.lipschitz <= certificate.lipschitz * SLACK, activation
        assert found.averagedness <= certificate.averagedness * SLACK, activation


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("tableau", CONTRACTIVE, ids=_name)
def test_long_attack_at_the_best_fraction(tableau, activation):
    flow = block(tableau, activation, "dense", fraction=1.0, seed=3)
    certificate = stablenet.certify(flow).certificate
    found = attack(flow, (6,), averagedness=certificate.averagedness, iterations=60, pairs=12, seed=1)
    assert found.lipschitz <= certificate.lipschitz * SLACK
    assert found.averagedness <= certificate.averagedness * SLACK


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_euler_bound_is_attained_in_the_linear_regime(activation):
    """All slopes at their largest: the certified alpha and, just beyond the circle, max(1, z - 1) are the truth."""
    flow = block(tableaus.EULER, activation, "dense", regime="linear")
    alpha = stablenet.certify(flow).averagedness
    close = {"iterations": 80, "spread": 1e-4, "distances": (1e-5, 1e-4)}
    assert attack(flow, (6,), averagedness=alpha, **close).averagedness >= 0.98 * alpha
    flow.schedule = Schedule(1, 1.25 * flow.schedule.step_size)
    certificate = stablenet.certify(flow).certificate
    assert not certificate.is_nonexpansive
    found = attack(flow, (6,), averagedness=0.9, **close)
    assert 0.97 * certificate.lipschitz <= found.lipschitz <= certificate.lipschitz * SLACK


@pytest.mark.parametrize("linear", ["conv1d-circular", "conv2d", "conv2d-strided", "polyphase-7"])
def test_convolution_bound_is_nearly_attained_on_a_larger_image(linear):
    """The norm is certified for every size: on an image larger than the one tracked in training it is still a bound."""
    flow = block(tableaus.EULER, "leaky", linear, regime="linear")
    channels, *example = flow.linear.example_shape
    shape = (channels, *[2 * n + 1 for n in example])
    alpha = stablenet.certify(flow).averagedness
    _, top, _ = power_iteration(
        flow.linear,
        torch.randn(1, *shape, dtype=torch.float64),
        adjoint=lambda y: flow.linear.adjoint(y, shape[1:]),
        tolerance=1e-6,
        max_iterations=300,
    )
    found = attack(flow, shape, averagedness=alpha, iterations=4, pairs=2, spread=1e-3, distances=(1e-3, 1e-2), start=top)
    assert 0.97 * alpha <= found.averagedness <= alpha * SLACK
    assert found.lipschitz <= SLACK


@pytest.mark.parametrize("tableau", CONTRACTIVE, ids=_name)
def test_beyond_the_circle_no_claim_is_made_and_what_is_claimed_holds(tableau):
    for factor in (1.01, 1.5, 3.0):
        flow = block(tableau, "relu", "dense", regime="linear")
        flow.schedule = Schedule(2, factor * flow.schedule.step_size)
        certificate = stablenet.certify(flow).certificate
        assert not certificate.is_nonexpansive
        assert certificate.averagedness is None
        found = attack(flow, (6,), averagedness=0.9, iterations=30, spread=1e-2, distances=(1e-3, 1e-2))
        assert found.lipschitz <= certificate.lipschitz * SLACK


def test_linear_stability_is_not_enough():
    """RK4 at z = 2.7 is linearly stable (2.785) and must not be certified: a nonlinear field may expand."""
    assert not tableaus.RK4.is_nonexpansive(2.7)
    assert tableaus.RK4.lipschitz(2.7) > 1


@pytest.mark.parametrize("steps", [1, 3])
def test_scale_keeps_the_certificate(steps):
    """The perspective s sigma(./s), s > 0 a channel: the certificate does not depend on s."""
    flow = block(tableaus.HEUN, "spline", "conv2d")
    flow.schedule = Schedule(steps, flow.schedule.step_size)
    certificate = stablenet.certify(flow).certificate
    for exponent in (-3.0, 0.0, 3.0):
        scale = (exponent + torch.randn(1, 3, 1, 1, dtype=torch.float64)).exp()
        found = attack(lambda x, s=scale: flow(x, s), (2, 8, 7), averagedness=certificate.averagedness)
        assert found.lipschitz <= SLACK
        assert found.averagedness <= certificate.averagedness * SLACK
