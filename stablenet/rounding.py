"""Outward rounding, and every margin that a bound leaves for rounding, each with its reason.

Source: docs/theorems.md, N2 (products and squarings) and R1 (logits); u is the unit roundoff, 2^-53 for float64.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction

UNIT_ROUNDOFF = 2.0**-53
SINGLE_ROUNDOFF = 2.0**-24


def round_up(value: Fraction) -> float:
    """The smallest float that is not below an exact rational; infinity beyond the largest float."""
    try:
        nearest = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    return nearest if Fraction(nearest) >= value else math.nextafter(nearest, math.inf)


def round_down(value: Fraction) -> float:
    """The largest float that is not above an exact rational."""
    return -round_up(-value)


def square_up(value: float) -> float:
    """value^2 rounded up; infinity on overflow, where `value**2` would raise."""
    return math.nextafter(value * value, math.inf) if value else 0.0


def six_digits_up(value: float) -> str:
    """Six significant digits, rounded up, so that what is printed is still an upper bound."""
    return f"{float(Context(prec=6, rounding=ROUND_CEILING).create_decimal(Decimal(value))):.6g}"


def up(value: float | Fraction) -> str:
    """At most six decimals, rounded up, at least two: what is printed is still an upper bound."""
    return _decimals(math.ceil(Fraction(value) * 10**6)) if math.isfinite(value) else "inf"


def down(value: float | Fraction) -> str:
    """At most six decimals, rounded down, at least two: what is printed is still admissible."""
    return _decimals(math.floor(Fraction(value) * 10**6)) if math.isfinite(value) else "inf"


def _decimals(millionths: int) -> str:
    whole, digits = f"{millionths / 10**6:.6f}".split(".")
    return f"{whole}.{digits.rstrip('0'):0<2}"


def eigensolver_margin(size: int, longest: int) -> float:
    """Of the largest eigenvalue of a (size, size) Gram matrix over `longest` products, as a share of its trace.

    Backward error p(n) u |G| of the product and of LAPACK's symmetric eigensolver, with a generous p.
    """
    return 1e-12 + 64 * (size**1.5 + longest) * UNIT_ROUNDOFF


def squarings_margin(size: int, unit: float = UNIT_ROUNDOFF) -> float:
    """The relative error that a chain of normalized squarings adds to the largest eigenvalue of a (size, size) matrix (N2)."""
    return 8 * size * (size + 4) * unit


def gram_margin(shape: tuple[int, int]) -> float:
    """The relative error of a singular value whose square went through a Gram product and a chain of squarings (N2)."""
    return 1e-12 + squarings_margin(min(shape)) + 8 * max(shape) * UNIT_ROUNDOFF
