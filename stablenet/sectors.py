"""Sectors of proximal maps: what differences of images do beside differences of points, by one rule per exact class.

Source: a proximal map of a convex function is firmly nonexpansive [Moreau1965]; docs/theorems.md, K1.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from stablenet.certificate import NotCertified
from stablenet.proximal import (
    GroupMaximum,
    GroupSoftThreshold,
    HardThreshold,
    LeakyNonnegative,
    Nonnegative,
    Scaled,
    ShiftedNonnegative,
    SoftThreshold,
)
from stablenet.rules import Rules


@dataclass(frozen=True)
class Sector:
    """<dh - low dv, high dv - dh> >= 0 for the differences dv and dh of any two points and their images.

    So dh lies in the ball of center (low + high)/2 dv and radius (high - low)/2 |dv|; h is high-Lipschitz.
    """

    low: Fraction
    high: Fraction


sector: Rules[Sector] = Rules(
    "sector of the proximal map", NotCertified, "known are {known}; register one with @stablenet.sectors.sector({name})"
)
"""Of proximal maps by exact class; a discontinuous one is refused."""


Weighted = ShiftedNonnegative | SoftThreshold | GroupSoftThreshold


def _as_constructed(prox: Weighted | LeakyNonnegative | Scaled) -> None:
    """A frozen value can be changed by force: its parameters are looked at again."""
    try:
        prox.__post_init__()
    except ValueError as error:
        raise NotCertified(str(error)) from None


@sector(Nonnegative)
def _unit(prox: Nonnegative) -> Sector:
    return Sector(Fraction(0), Fraction(1))


@sector(ShiftedNonnegative, SoftThreshold, GroupSoftThreshold)
def _weighted(prox: Weighted) -> Sector:
    _as_constructed(prox)
    return Sector(Fraction(0), Fraction(1))


@sector(LeakyNonnegative)
def _leaky(prox: LeakyNonnegative) -> Sector:
    _as_constructed(prox)
    return Sector(Fraction(prox.slope), Fraction(1))


@sector(Scaled)
def _scaled(prox: Scaled) -> Sector:
    _as_constructed(prox)
    inside = sector.of(prox.inner)
    return Sector(Fraction(prox.factor) * inside.low, Fraction(prox.factor) * inside.high)


@sector(HardThreshold, GroupMaximum)
def _jumping(prox: HardThreshold | GroupMaximum) -> Sector:
    raise NotCertified(
        f"{prox!r} is discontinuous, so that it has no Lipschitz constant: take SoftThreshold or GroupSoftThreshold"
    )
