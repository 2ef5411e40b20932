"""A certified norm of every operator with nonnegative entries, from its products with a positive image.

Source: [Collatz1942; Wielandt1950], docs/theorems.md, F4. B = A^T A is symmetric and nonnegative; for v > 0 and
V = diag(v), |A|^2 = |B| = rho(B) = rho(V^-1 B V) <= |V^-1 B V|_inf = max_i (Bv)_i / v_i.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from deepinv.physics import LinearPhysics, Tomography
from deepinv.physics.functional import IRadon, Radon
from torch import Tensor

from pnp.bounds import Refused
from pnp.physics.alterations import REMEDY, require_as_constructed
from pnp.physics.smoothness import Smoothness, at_size, rule

FLOOR = 1e-3  # of the largest entry of v: a pixel that is hardly seen needs no more


@torch.no_grad()
def nonnegative_bound(physics: LinearPhysics, example: Tensor, reason: str, *, terms: int, iterations: int = 10) -> Smoothness:
    """min over a few v > 0 of max_i (A^T A v)_i / v_i, rounded up: |A|^2 is at most that, for images like the example.

    Every term of the sums is nonnegative, so that a computed entry of A^T A v is off by a relative (terms + 8) units of
    roundoff, each of 1/2 eps, and the quotient by one more: eps (terms + 8) covers both.

    Parameters
    ----------
    physics : A with nonnegative entries and A_adjoint its transpose, which the caller knows or has tested.
    example : of the shape, dtype and device of the images.
    reason : why the entries are nonnegative.
    terms : summed for an entry of A v and of A^T w, together, at most.
    iterations : of v <- A^T A v, which brings the bound close to |A|^2.
    """
    v = torch.ones_like(example)
    smallest = math.inf
    for _ in range(iterations):
        product = physics.A_adjoint(physics.A(v))
        smallest = min(smallest, float((product.double() / v.double()).max()))
        v = (product / product.max().clamp(min=torch.finfo(v.dtype).tiny)).clamp(min=FLOOR)
    bound = math.nextafter(smallest * (1 + (terms + 8) * torch.finfo(example.dtype).eps), math.inf)
    return Smoothness(bound, f"max (A^T A v)/v at an image v > 0, {reason}")


@at_size(Tomography)
def _tomography(physics: Tomography) -> Callable[[Tensor], Smoothness] | None:
    """Sums along parallel lines of bilinear interpolations, whose weights are nonnegative, divided by a positive number.

    A line meets at most sqrt(2) W points of 4 pixels each; a pixel is met by at most 9 points of a rotated grid of its
    own spacing. The transpose is taken by automatic differentiation; deepinv's other A_adjoint is not the adjoint.
    """
    require_as_constructed(physics)
    if physics.fan_beam or not physics.adjoint_via_backprop or (physics.normalize and not float(physics.operator_norm) > 0):
        return None
    if (type(physics.radon), type(physics.iradon)) != (Radon, IRadon):
        return None
    require_as_constructed(physics.radon)
    terms = 4 * (3 * physics.img_width // 2 + 2) + 16 * len(physics.angles)
    reason = "as sums of interpolated pixels along lines have nonnegative weights"
    return lambda example: nonnegative_bound(physics, example, reason, terms=terms)


@rule(Tomography)
def _tomography_alone(physics: Tomography) -> Smoothness:
    """The size of its images is known, so that no example is needed."""
    bound = _tomography(physics)
    if bound is None:
        raise Refused(
            "the norm of Tomography is unknown for a fan beam, for adjoint_via_backprop=False (whose A_adjoint is not the "
            f"adjoint) and with parts that were replaced. {REMEDY}"
        )
    kind = physics.operator_norm if physics.normalize else physics.radon.all_grids
    return bound(torch.zeros(1, 1, physics.img_width, physics.img_width, dtype=kind.dtype, device=kind.device))
