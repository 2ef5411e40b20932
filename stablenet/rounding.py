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


FINE = 160
"""Bits after the point of the rationals that recursions run in, so that their numerators stay short."""


def fine_up(value: Fraction) -> Fraction:
    """The smallest multiple of 2^-FINE that is not below an exact rational."""
    return Fraction(math.ceil(value * 2**FINE), 2**FINE)


def root_up(value: Fraction) -> Fraction:
    """The smallest multiple of 2^-FINE that is not below the root of an exact rational >= 0."""
    square = math.ceil(value * 4**FINE)
    return Fraction(math.isqrt(square - 1) + 1 if square > 0 else 0, 2**FINE)


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


def row_margin(outputs: int) -> float:
    """The relative error of the norm of a symbol with one column, a sum of `outputs` squares (N2)."""
    return 1e-12 + 8 * (outputs + 4) * UNIT_ROUNDOFF


def cholesky_margin(size: int, unit: float = UNIT_ROUNDOFF) -> float:
    """By what share of s a matrix G may exceed s I although the Cholesky factorization of s I - G ran to its end (N2).

    |error| <= gamma trace(s I - G) <= gamma n s, gamma = 3 (n + 4) u for complex inner products; 8 u for the diagonal.
    """
    return (3 * (size + 4) * size + 8) * 1.01 * unit


def interpolation_margin(shape: tuple[int, ...], unit: float = UNIT_ROUNDOFF) -> float:
    """Of a Gram matrix interpolated from samples of a symbol, as a share of the samples' largest trace and the gain (N2).

    shape (out, in, *taps). In float64: 2 sqrt(K) (16 k + 8) an axis for the phases and sums of the symbol over K taps,
    4 (out + 4) for the product, 128 k^2 an axis for the tables. In `unit`: 4 k + 8 for the sums of the last axis.
    """
    outputs, taps = shape[0], shape[2:]
    terms = sum(2 * math.sqrt(math.prod(taps)) * (16 * k + 8) + 128 * k * k for k in taps) + 4 * (outputs + 4)
    return 1.01 * (terms * UNIT_ROUNDOFF + (4 * taps[-1] + 8) * unit)


FAST_CONVOLUTION = 64
"""By how much Winograd and FFT kernels may exceed the bound of the sums that they replace: chosen large, not proved."""


def dot_product_margin(length: int, unit: float) -> float:
    """gamma_n = n u / (1 - n u): what n roundings in sequence add, relative to |w| |x| of an inner product in any order.

    Infinity where n u >= 1/2, as there is no bound then. Underflow is left out, as in the standard model.
    """
    return math.inf if length * unit >= 0.5 else length * unit / (1 - length * unit)


def logits_allowance(unit: float) -> float:
    """What is subtracted from the difference of two logits whose network is not at hand: 1024 u, no proof.

    The shipped classifiers were seen to be off by 33 u (1.9e-6 in single precision).
    """
    return 1024 * unit
