"""The proved lower bound of a convex program, from any residual and what its columns make of it.

Source: Fenchel's inequality [BoydVandenberghe2004, chapter 5]; docs/theorems.md, X2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stablenet.convex.datafits import Datafit
from stablenet.convex.penalties import GroupNorm
from stablenet.rounding import SINGLE_ROUNDOFF, UNIT_ROUNDOFF, dot_product_margin


def unit_roundoff(values: Tensor) -> float:
    """Of the tensor's type."""
    return UNIT_ROUNDOFF if values.dtype == torch.float64 else SINGLE_ROUNDOFF


def fenchel_bound(datafit: Datafit, penalty: GroupNorm, y: Tensor, R: Tensor, polar: float) -> float:
    """max of -f*(aR) - penalty*(-a A^T R) over a = 1 and the a <= 1 that makes aR feasible, with rounding subtracted.

    Parameters
    ----------
    y, R : (n, outputs), R in the domain of f*.
    polar : an upper bound of the longest group of A^T R, on its cone.
    """
    scale = 1.0 if polar <= penalty.weight else penalty.weight / polar * (1 - 4 * UNIT_ROUNDOFF)
    bounds = [_dual(datafit, y, scale * R, 0.0)]
    if penalty.most is not None and polar > penalty.weight:
        bounds.append(_dual(datafit, y, R, penalty.conjugate(polar)))
    return max(bounds)


def _dual(datafit: Datafit, y: Tensor, R: Tensor, conjugate: float) -> float:
    R = datafit.into_domain(R, y)
    terms = datafit.conjugate_terms(R, y)
    size = float(terms.abs().sum() + 2 * (R * y).abs().sum()) + conjugate + 2 * datafit.weight
    return -float(terms.sum()) - conjugate - dot_product_margin(terms.numel() + 8, unit_roundoff(terms)) * size
