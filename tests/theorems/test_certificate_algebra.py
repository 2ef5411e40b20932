"""Composition, relaxation, mixing, scaling and conjugation against matrices whose constants are computed apart."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

import stablenet
from stablenet.certificate import IDENTITY, NONEXPANSIVE, Certificate, compose, mix
from stablenet.linear import Dense

alphas = st.floats(0, 1)
SLACK = 1e-12


def exact_norm(matrix: np.ndarray) -> float:
    return float(np.linalg.norm(matrix, 2))


def holds(matrix: np.ndarray, certificate: Certificate) -> bool:
    """A linear T is alpha-averaged iff |T - (1 - alpha) I| <= alpha: the definition, without the algebra."""
    if exact_norm(matrix) > certificate.lipschitz + SLACK:
        return False
    alpha = certificate.averagedness
    return alpha is None or exact_norm(matrix - (1 - alpha) * np.eye(len(matrix))) <= alpha + SLACK


def averaged_matrix(alpha: float, seed: int, size: int = 4) -> np.ndarray:
    """(1 - alpha) I + alpha Q with Q orthogonal: alpha-averaged, and (unless Q = I) hardly better."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    return (1 - alpha) * np.eye(size) + alpha * q


@given(st.lists(st.tuples(alphas, st.integers(0, 9999)), min_size=1, max_size=5))
def test_composition(factors):
    product, certificate = np.eye(4), IDENTITY
    for alpha, seed in factors:
        product = averaged_matrix(alpha, seed) @ product
        certificate = certificate.then(Certificate(1.0, alpha))
    assert certificate == compose([Certificate(1.0, alpha) for alpha, _ in factors])
    assert holds(product, certificate)


@given(alphas, st.integers(0, 9999), st.floats(0, 3))
def test_relaxation(alpha, seed, weight):
    matrix = averaged_matrix(alpha, seed)
    relaxed = (1 - weight) * np.eye(4) + weight * matrix
    assert holds(relaxed, Certificate(1.0, alpha).relax(weight))


@given(st.lists(st.tuples(alphas, st.integers(0, 9999), st.integers(1, 9)), min_size=1, max_size=4))
def test_mixing(terms):
    total = sum(w for _, _, w in terms)
    weights = [w / total for _, _, w in terms]
    matrix = sum(w * averaged_matrix(alpha, seed) for w, (alpha, seed, _) in zip(weights, terms, strict=True))
    assert holds(matrix, mix([Certificate(1.0, alpha) for alpha, _, _ in terms], weights))


@given(st.floats(0, 5), st.integers(0, 9999), st.floats(0, 5), st.integers(0, 9999), st.floats(0, 2))
def test_constants_beyond_one(first, seed, second, other, weight):
    a, b = (c * averaged_matrix(1.0, s) for c, s in ((first, seed), (second, other)))
    one, two = Certificate(first), Certificate(second)
    assert holds(b @ a, one.then(two))
    assert holds((1 - weight) * np.eye(4) + weight * a, one.relax(weight))
    assert holds(0.3 * a + 0.7 * b, mix([one, two], [0.3, 0.7]))


@given(alphas, st.integers(0, 9999), st.floats(-4, 4))
def test_scaling_and_conjugation(alpha, seed, factor):
    """x -> T(m x)/m and E^T T E, for T averaged and nonlinear: T = (1 - alpha) I + alpha |Q x| elementwise."""
    assume(abs(factor) > 1e-3)
    generator = np.random.default_rng(seed)
    q, _ = np.linalg.qr(generator.standard_normal((6, 6)))
    lift, _ = np.linalg.qr(generator.standard_normal((6, 3)))
    certificate = Certificate(1.0, alpha)

    def function(x: np.ndarray) -> np.ndarray:
        return (1 - alpha) * x + alpha * np.abs(q @ x)

    def check(f, bound: Certificate, size: int) -> None:
        x, y = generator.standard_normal((2, size))
        moved, difference = f(x) - f(y), x - y
        assert np.linalg.norm(moved) <= bound.lipschitz * np.linalg.norm(difference) + SLACK
        rest = difference - moved
        assert rest @ rest <= 2 * bound.averagedness * (rest @ difference) + SLACK

    check(lambda x: function(factor * x) / factor, certificate.scale(factor), 6)
    check(lambda x: lift.T @ function(lift @ x), certificate.conjugate(), 3)


@given(alphas)
def test_residual_map_is_only_2_alpha_lipschitz(alpha):
    """x - N(x) with N alpha-averaged: the constant 2 alpha is attained at Q = -I, so a residual output is a trap."""
    n = (1 - alpha) * np.eye(2) - alpha * np.eye(2)
    assert exact_norm(np.eye(2) - n) == pytest.approx(2 * alpha, abs=1e-15)
    assert Certificate(1.0, alpha).relax(2.0).lipschitz >= exact_norm(2 * n - np.eye(2)) - SLACK


def test_a_residual_module_has_no_rule():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Dense(2, 2)

        def forward(self, x):
            return x - self.inner(x)

    with pytest.raises(stablenet.NotCertified, match="Residual"):
        stablenet.certify(Residual())


@pytest.mark.parametrize("m", [1, 2, 3, 10, 64])
def test_firmly_nonexpansive_maps_compose_to_m_over_m_plus_1(m):
    assert Fraction(compose([Certificate(1.0, 0.5)] * m).averagedness) == pytest.approx(Fraction(m, m + 1), rel=1e-15)
    assert Fraction(compose([Certificate(1.0, 0.5)] * m).averagedness) >= Fraction(m, m + 1)


@pytest.mark.parametrize("depth", [1, 5, 100])
def test_anchoring_keeps_averagedness_at_any_depth(depth):
    total = IDENTITY
    for _ in range(depth):
        total = mix([total.then(NONEXPANSIVE), IDENTITY], [0.5, 0.5])
    assert total.averagedness == 0.5
    rng, matrix = np.random.default_rng(depth), np.eye(4)
    for _ in range(depth):
        matrix = 0.5 * averaged_matrix(1.0, int(rng.integers(9999))) @ matrix + 0.5 * np.eye(4)
    assert holds(matrix, total)


@given(alphas, alphas)
def test_composition_rounds_outward(first, second):
    certificate = Certificate(1.0, first).then(Certificate(1.0, second))
    a, b = Fraction(first), Fraction(second)
    if a == 1 or b == 1:
        assert certificate.averagedness == 1
        return
    phi = a / (1 - a) + b / (1 - b)
    exact = phi / (1 + phi)
    assert exact <= Fraction(certificate.averagedness) <= exact + Fraction(1, 2**52)


@given(st.floats(0, 1e3), st.floats(0, 1e3), st.floats(0, 10))
def test_lipschitz_constants_round_outward(first, second, weight):
    assert Fraction(Certificate(first).then(Certificate(second)).lipschitz) >= Fraction(first) * Fraction(second)
    relaxed = Certificate(first).relax(weight)
    if first > 1:
        assert Fraction(relaxed.lipschitz) >= abs(1 - Fraction(weight)) + Fraction(weight) * Fraction(first)


@given(st.floats(1e-9, 1e9))
def test_what_is_printed_is_a_bound(value):
    text = str(Certificate(value)).split(",")[0].removeprefix("lipschitz <= ")
    assert value <= float(text) <= value * (1 + 1e-5)


def test_printed_constants_just_above_one_do_not_read_as_one():
    assert "lipschitz <= 1," not in str(Certificate(1 + 1e-7))
    assert "lipschitz <= 1," in str(Certificate(1.0))


def test_over_relaxation_up_to_1_over_alpha():
    assert Certificate(1.0, 0.5).relax(2.0).averagedness == 1
    assert Certificate(1.0, 0.25).relax(2.0).is_firmly_nonexpansive
    assert not Certificate(1.0, 0.6).relax(2.0).is_nonexpansive
    assert Certificate(1.0, 0.75).relax(0.625).is_firmly_nonexpansive
    assert NONEXPANSIVE.relax(0.5).is_firmly_nonexpansive


def test_contractions_are_averaged_and_unknown_stays_none():
    assert Certificate(0.5).averagedness == 0.75
    assert Certificate(1.0).averagedness == 1
    assert Certificate(1.5).averagedness is None
    assert not Certificate(1.5).is_nonexpansive
    assert Certificate(2.0).then(Certificate(0.25)).averagedness == 0.75
    assert Certificate(7.0, 0.3).lipschitz == 1


@pytest.mark.parametrize("lipschitz", [-1.0, math.nan, math.inf])
def test_bad_lipschitz(lipschitz):
    with pytest.raises(ValueError, match="lipschitz"):
        Certificate(lipschitz)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_bad_averagedness(alpha):
    with pytest.raises(ValueError, match="averagedness"):
        Certificate(1.0, alpha)


@pytest.mark.parametrize("weight", [-0.5, math.nan, math.inf])
def test_bad_relaxation(weight):
    with pytest.raises(ValueError, match="relaxation"):
        NONEXPANSIVE.relax(weight)


@pytest.mark.parametrize("factor", [0.0, math.nan, math.inf])
def test_bad_scale(factor):
    with pytest.raises(ValueError, match="scaling"):
        NONEXPANSIVE.scale(factor)


@pytest.mark.parametrize("weights", [[0.5], [0.7, 0.7], [1.5, -0.5], []])
def test_bad_mixing_weights(weights):
    with pytest.raises(ValueError, match="weights"):
        mix([IDENTITY, NONEXPANSIVE], weights)


def test_a_sequential_is_the_composition_of_its_parts():
    torch.manual_seed(0)
    layers = nn.Sequential(Dense(3, 4), nn.ReLU(), Dense(4, 3), nn.Identity(), nn.Dropout(0.5)).double()
    tree = stablenet.certify(layers)
    product = layers[0].weight.detach().double(), layers[2].weight.detach().double()
    norms = [float(torch.linalg.matrix_norm(w, 2)) for w in product]
    assert norms[0] * norms[1] <= tree.lipschitz <= norms[0] * norms[1] * (1 + 1e-6)
    lines = str(tree).splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("Sequential: lipschitz <= ")
    assert [line.split(":")[0].strip("├└─ ") for line in lines[1:]] == ["Dense", "ReLU", "Dense", "Identity", "Dropout"]
