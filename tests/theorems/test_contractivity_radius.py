"""r = -1/lambda_min(S): against the published table, against nodepy, and against random tableaus."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nodepy.runge_kutta_method import ExplicitRungeKuttaMethod
from torch import nn

from stablenet import tableaus
from stablenet.blocks import GradientFlow
from stablenet.butcher import ButcherTableau
from stablenet.linear import Dense
from tests.inventory import CONTRACTIVE, RADII


def _arrays(tableau: ButcherTableau) -> tuple[np.ndarray, np.ndarray]:
    return np.array(tableau.a, dtype=float), np.array(tableau.b, dtype=float)


def _name(tableau: object) -> str:
    return getattr(tableau, "name", "")


@pytest.mark.parametrize(("tableau", "radius"), RADII.items(), ids=_name)
def test_published_radius(tableau, radius):
    assert tableau.circle_contractivity_radius == pytest.approx(radius, rel=1e-12, abs=0)


@pytest.mark.parametrize("tableau", RADII, ids=_name)
def test_radius_agrees_with_nodepy(tableau):
    a, b = _arrays(tableau)
    theirs = ExplicitRungeKuttaMethod(a, b).circle_contractivity_radius()
    assert tableau.circle_contractivity_radius == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("tableau", CONTRACTIVE, ids=_name)
def test_radius_is_never_rounded_up(tableau):
    r = tableau.circle_contractivity_radius
    assert tableau.is_nonexpansive(2 * r)
    assert not tableau.is_nonexpansive(2 * math.nextafter(r, math.inf))


@pytest.mark.parametrize("s", [1, 2, 5, 12])
def test_s_euler_substeps_have_radius_s(s):
    assert tableaus.euler_substeps(s).circle_contractivity_radius == s


@pytest.mark.parametrize("s", [2, 3, 6, 10])
def test_ssprk_s_2_has_radius_s_minus_1(s):
    assert tableaus.ssprk2(s).circle_contractivity_radius == s - 1
    assert tableaus.ssprk2(s).order == 2


@pytest.mark.parametrize(
    ("tableau", "order"),
    [
        (tableaus.EULER, 1),
        (tableaus.HEUN, 2),
        (tableaus.MIDPOINT, 2),
        (tableaus.RALSTON2, 2),
        (tableaus.SSPRK3, 3),
        (tableaus.KUTTA3, 3),
        (tableaus.HEUN3, 3),
        (tableaus.RALSTON3, 3),
        (tableaus.SSPRK43, 3),
        (tableaus.RK4, 4),
        (tableaus.RK38, 4),
        (tableaus.DORMAND_PRINCE, 4),
    ],
    ids=_name,
)
def test_order_of_accuracy(tableau, order):
    assert tableau.order == order


@pytest.mark.parametrize("tableau", [t for t, r in RADII.items() if r == 0], ids=_name)
def test_radius_zero_is_refused_in_a_block(tableau):
    with pytest.raises(ValueError, match="radius 0.*use Euler"):
        GradientFlow(Dense(2, 2), nn.ReLU(), tableau=tableau)
    with pytest.raises(ValueError, match="not nonexpansive"):
        tableau.averagedness(1e-3)


def test_negative_weight_or_unweighted_stage_has_radius_zero():
    assert ButcherTableau([[0, 0], [1, 0]], [Fraction(3, 2), Fraction(-1, 2)]).circle_contractivity_radius == 0
    assert ButcherTableau([[0, 0], [1, 0]], [0, 1]).circle_contractivity_radius == 0


def test_an_unused_stage_changes_nothing():
    padded = ButcherTableau([[0, 0], [1, 0]], [1, 0], "Euler and a spare stage")
    assert padded.circle_contractivity_radius == 1
    assert padded.averagedness(1.5) == tableaus.EULER.averagedness(1.5)


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        ([[0]], [0.9], "sum to 1"),
        ([[0, 1], [0, 0]], [0.5, 0.5], "explicit"),
        ([[0.5]], [1], "explicit"),
        ([[0, 0]], [0.5, 0.5], "2 x 2"),
        ([[0]], [float("nan")], "finite"),
        ([[0]], ["one"], "finite"),
        ([], [], "0 x 0"),
    ],
)
def test_bad_tables_are_refused(a, b, text):
    with pytest.raises(ValueError, match=text):
        ButcherTableau(a, b)


@st.composite
def tables(draw) -> ButcherTableau:
    s = draw(st.integers(1, 4))
    entry = st.integers(-6, 12)
    raw = [draw(st.integers(1, 9)) for _ in range(s)]
    rows = [[Fraction(draw(entry), 6) if j < i else Fraction(0) for j in range(s)] for i in range(s)]
    return ButcherTableau(rows, [Fraction(x, sum(raw)) for x in raw])


@given(tables())
@settings(max_examples=60)
def test_random_tables_against_dense_eigenvalues(tableau):
    a, b = _arrays(tableau)
    m = np.diag(b) @ a + a.T @ np.diag(b) - np.outer(b, b)
    d = np.diag(b**-0.5)
    radius = -1 / np.linalg.eigvalsh(d @ m @ d)[0]
    assert tableau.circle_contractivity_radius == pytest.approx(radius, rel=1e-9)


@given(tables())
@settings(max_examples=15)
def test_random_tables_against_nodepy(tableau):
    theirs = float(ExplicitRungeKuttaMethod(*_arrays(tableau)).circle_contractivity_radius())
    assert tableau.circle_contractivity_radius == pytest.approx(theirs, rel=1e-5, abs=1e-6)


@given(tables(), st.integers(1, 3), st.floats(0.1, 2.0))
@settings(max_examples=30)
def test_substeps_written_as_one_method_compute_the_same(tableau, n, z):
    def run(table: ButcherTableau, x: float, h: float) -> float:
        stages: list[float] = []
        for row in table.a:
            point = x + h * sum(float(w) * k for w, k in zip(row, stages, strict=False))
            stages.append(-math.tanh(point + 0.3))
        return x + h * sum(float(w) * k for w, k in zip(table.b, stages, strict=True))

    x = 0.7
    for _ in range(n):
        x = run(tableau, x, z / n)
    assert run(tableau.substeps(n), 0.7, z) == pytest.approx(x, rel=1e-9, abs=1e-9)
