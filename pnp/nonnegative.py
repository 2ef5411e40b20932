"""A certified norm of every operator with nonnegative entries, from its products with a positive image.

Source: Collatz and Wielandt [docs/theorems.md, P5, derived]. B = A^T A is symmetric and nonnegative; for v > 0 and
V = diag(v), |A|^2 = |B| = rho(B) = rho(V^-1 B V) <= |V^-1 B V|_inf = max_i (Bv)_i / v_i.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from deepinv.physics import LinearPhysics, Tomography
from deepinv.physics.functional import IRadon, Radon
from torch import Tensor

from pnp.bounds import Refused
from pnp.rules import Rules

FLOOR = 1e-3  # of the largest entry of v: a pixel that is hardly seen needs no more


@dataclass(frozen=True)
class Nonnegative:
    """The entries of A are nonnegative, why, and how many terms a row and a column of A have at most, together."""

    reason: str
    terms: int


rule: Rules[Nonnegative | None] = Rules("the sign of the entries", Refused, "Pass smoothness=, an upper bound of |A|^2.")


@torch.no_grad()
def upper_bound(physics: LinearPhysics, example: Tensor, *, terms: int, iterations: int = 10) -> float:
    """min over a few v > 0 of max_i (A^T A v)_i / v_i, rounded up: |A|^2 is at most that, for images like the example.

    Every term of the sums is nonnegative, so that a computed entry of A^T A v is off by a relative (terms + 8) units of
    roundoff, each of 1/2 eps, and the quotient by one more: eps (terms + 8) covers both.

    Parameters
    ----------
    physics : A with nonnegative entries and A_adjoint its transpose, which the caller knows or has tested.
    example : of the shape, dtype and device of the images.
    terms : summed for an entry of A v and of A^T w, together.
    iterations : of v <- A^T A v, which brings the bound close to |A|^2.
    """
    v = torch.ones_like(example)
    smallest = math.inf
    for _ in range(iterations):
        product = physics.A_adjoint(physics.A(v))
        smallest = min(smallest, float((product.double() / v.double()).max()))
        v = (product / product.max().clamp(min=torch.finfo(v.dtype).tiny)).clamp(min=FLOOR)
    return math.nextafter(smallest * (1 + (terms + 8) * torch.finfo(example.dtype).eps), math.inf)


@rule(Tomography)
def _tomography(physics: Tomography) -> Nonnegative | None:
    """Sums along parallel lines of bilinear interpolations, whose weights are nonnegative, divided by a positive number.

    A line meets at most sqrt(2) W points of 4 pixels each; a pixel is met by at most 9 points of a rotated grid of its
    own spacing. The transpose is taken by automatic differentiation; the other one of deepinv is not the adjoint.
    """
    parts = (type(physics.radon), type(physics.iradon)) if not physics.fan_beam else ()
    if parts != (Radon, IRadon) or (physics.normalize and not float(physics.operator_norm) > 0):
        return None
    terms = 4 * (3 * physics.img_width // 2 + 2) + 16 * len(physics.angles)
    return Nonnegative("as sums of interpolated pixels along lines have nonnegative weights", terms)
