"""Each theorem holds exactly on its stated range of step sizes and relaxations, and refuses with the admissible one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pnp
from pnp.guarantees import (
    condat_vu,
    douglas_rachford,
    down,
    half_quadratic,
    largest_relaxation,
    proximal_gradient,
    regularization_by_denoising,
    up,
)
from stablenet.certificate import Certificate

FIRM = Certificate(1.0, 0.5)


def test_the_refusal_quotes_both_numbers_and_the_way_out() -> None:
    with pytest.raises(pnp.Refused) as caught:
        proximal_gradient(FIRM, 1.0, step_size=2.4)
    assert str(caught.value) == (
        "PGD with step_size=2.4 is not covered: smoothness <= 1.00, so step_size must lie in (0, 2.00)."
    )


@given(st.floats(0.01, 100), st.floats(0.01, 0.99))
def test_a_firmly_nonexpansive_denoiser_gives_the_known_averagedness(smoothness: float, fraction: float) -> None:
    step_size = 2 * fraction / smoothness
    alpha = proximal_gradient(FIRM, smoothness, step_size=step_size).averagedness
    assert alpha == pytest.approx(2 / (4 - step_size * smoothness), rel=1e-12)


@given(st.floats(1e-3, 1e3))
def test_the_end_of_the_interval_is_not_included(smoothness: float) -> None:
    with pytest.raises(pnp.Refused):
        proximal_gradient(FIRM, smoothness, step_size=math.nextafter(2 / smoothness, math.inf))
    assert proximal_gradient(FIRM, smoothness, step_size=1.999 / smoothness).averagedness < 1


@pytest.mark.parametrize("step_size", [0.0, -1.0, math.nan, math.inf])
def test_a_step_size_that_is_no_step_is_refused(step_size: float) -> None:
    with pytest.raises(pnp.Refused, match="finite and positive"):
        proximal_gradient(FIRM, 1.0, step_size=step_size)
    with pytest.raises(pnp.Refused, match="finite and positive"):
        douglas_rachford(FIRM, step_size=step_size)


def test_merely_nonexpansive_denoisers_need_relaxation() -> None:
    nonexpansive = Certificate(1.0, 1.0)
    with pytest.raises(pnp.Refused, match=r"averagedness <= 1.00, so relaxation must lie in \(0, 1.00\)"):
        proximal_gradient(nonexpansive, 1.0, step_size=1.0)
    assert proximal_gradient(nonexpansive, 1.0, step_size=1.0, relaxation=0.5).averagedness == pytest.approx(2 / 3)


def test_douglas_rachford_needs_a_firmly_nonexpansive_denoiser() -> None:
    averaged = Certificate(1.0, 0.8)
    with pytest.raises(pnp.Refused, match=r"averagedness <= 0.80.*\(0, 0.62[45]"):
        douglas_rachford(averaged, step_size=1.0)
    assert douglas_rachford(averaged, step_size=1e6, relaxation=0.62).averagedness == 0.5


def test_an_expansive_denoiser_is_refused_by_both() -> None:
    for theorem in (
        lambda c: proximal_gradient(c, 1.0, step_size=1.0, relaxation=0.1),
        lambda c: douglas_rachford(c, step_size=1.0, relaxation=0.1),
    ):
        with pytest.raises(pnp.Refused, match="Lipschitz constant <= 1.30"):
            theorem(Certificate(1.3))


@given(st.floats(0.01, 1.0))
def test_the_largest_relaxation_is_firm_and_the_next_one_is_not(alpha: float) -> None:
    certificate = Certificate(1.0, alpha)
    weight = largest_relaxation(certificate)
    assert certificate.relax(weight).is_firmly_nonexpansive
    assert not certificate.relax(math.nextafter(weight, math.inf) * (1 + 1e-15)).is_firmly_nonexpansive


@given(st.floats(0, 1e4))
def test_printed_bounds_are_still_bounds(value: float) -> None:
    assert float(down(value)) <= value <= float(up(value)) <= float(down(value)) + 1.1e-6


def test_the_rate_bounds_an_averaged_iteration() -> None:
    """A rotation mixed with the identity: the slowest kind of averaged map."""
    guarantee = douglas_rachford(FIRM, step_size=1.0)
    angle = 0.3
    rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    x = torch.tensor([1.0, 0.0])
    for k in range(200):
        moved = 0.5 * (x + rotation @ x)
        assert float(torch.linalg.vector_norm(moved - x)) <= guarantee.residual_bound(1.0, k)
        x = moved


@given(st.floats(0.0, 0.99), st.floats(1e-3, 1e3))
def test_half_quadratic_splitting_adds_one(alpha: float, step_size: float) -> None:
    claimed = half_quadratic(Certificate(1.0, alpha), step_size=step_size).averagedness
    assert claimed == pytest.approx((alpha / (1 - alpha) + 1) / (alpha / (1 - alpha) + 2), rel=1e-12)


@given(st.floats(0.01, 1.0), st.floats(0.01, 100), st.floats(0.01, 100), st.floats(0.01, 0.99))
def test_red_takes_steps_below_its_end_and_no_others(alpha: float, smoothness: float, weight: float, share: float) -> None:
    end = 2 / (smoothness + 2 * alpha * weight)
    settings = {"weight": weight}
    claimed = regularization_by_denoising(Certificate(1.0, alpha), smoothness, step_size=share * end, **settings)
    assert claimed.averagedness == pytest.approx(share, rel=1e-12)
    with pytest.raises(pnp.Refused, match=r"RED with step_size=.*must lie in \(0, "):
        regularization_by_denoising(Certificate(1.0, alpha), smoothness, step_size=1.000001 * end, **settings)


def test_condat_vu_has_two_step_sizes() -> None:
    claimed = condat_vu(FIRM, 1.0, 1.0, step_size=1.0, dual_step_size=0.25)
    assert claimed.averagedness == pytest.approx(1 / (2 - 0.5 / 0.75))
    assert condat_vu(FIRM, 0.0, 4.0, step_size=0.5, dual_step_size=0.5).averagedness == 0.5
    with pytest.raises(pnp.Refused, match=r"step_size=0.5 and dual_step_size=0.51 .*dual_step_size must lie in \(0, 0.50\]"):
        condat_vu(FIRM, 0.0, 4.0, step_size=0.5, dual_step_size=0.51)
    with pytest.raises(pnp.Refused, match=r"dual_step_size must lie in \(0, 0.50\)"):
        condat_vu(FIRM, 1.0, 1.0, step_size=1.0, dual_step_size=0.5)
    with pytest.raises(pnp.Refused, match=r"step_size must lie in \(0, 2.00\)"):
        condat_vu(FIRM, 1.0, 1.0, step_size=2.0, dual_step_size=0.1)
    with pytest.raises(pnp.Refused, match=r"firmly nonexpansive .*\(0, 0.62[45]"):
        condat_vu(Certificate(1.0, 0.8), 0.0, 1.0, step_size=1.0, dual_step_size=1.0)
