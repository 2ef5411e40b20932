"""How far a matrix is from a Parseval frame or a rotation: an upper bound of |A A^T - I|, and a gate.

Source: a sum of n products is off by at most gamma_n |a| |b| [Higham2002, section 3.1]; docs/theorems.md, O1.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from stablenet import spectral
from stablenet.rounding import UNIT_ROUNDOFF, dot_product_margin, round_up

TOLERANCE = 1e-5
"""The largest |A A^T - I| of a matrix that is taken for a Parseval frame or a rotation: float32 leaves some 1e-6."""


def matrix_defect(matrix: Tensor) -> float:
    """A certified upper bound of |A A^T - I| for an (m, n) matrix of finite numbers.

    The product in float64 is off by at most gamma_n |A|_F^2 in the Frobenius norm, the difference by u on the diagonal.
    """
    exact = matrix.detach().to(device="cpu", dtype=torch.float64)
    difference = exact @ exact.T - torch.eye(len(exact), dtype=torch.float64)
    size = float(exact.square().sum()) * (1 + 4 * exact.numel() * UNIT_ROUNDOFF)
    rounding = dot_product_margin(exact.shape[1] + 2, UNIT_ROUNDOFF) * size + 2 * math.sqrt(len(exact)) * UNIT_ROUNDOFF
    return round_up(Fraction(spectral.matrix_upper_bound(difference)) + Fraction(rounding * (1 + 1e-12)))


def norm_bound(matrix: Tensor) -> float:
    """A certified upper bound of |A| for a matrix that is nearly a frame: the better of |A A^T - I| and the eigenvalues."""
    found = Fraction(matrix_defect(matrix))
    return min(spectral.matrix_upper_bound(matrix), round_up(1 + found / 2))


def require_isometry(name: str, matrix: Tensor) -> Tensor:
    """The matrix in float64, rows orthonormal up to rounding.

    Raises
    ------
    ValueError : not a real finite matrix, more rows than columns, or |A A^T - I| above 1e-5.
    """
    if matrix.ndim != 2 or not 1 <= matrix.shape[0] <= matrix.shape[1]:
        raise ValueError(f"{name} needs a matrix with at least as many columns as rows, got shape {tuple(matrix.shape)}")
    if not matrix.dtype.is_floating_point:
        raise ValueError(
            f"{name} needs a real floating-point matrix, got {matrix.dtype}: complex F is [[Re F, -Im F], [Im F, Re F]]"
        )
    exact = matrix.detach().to(device="cpu", dtype=torch.float64).clone()
    if not torch.isfinite(exact).all():
        raise ValueError(f"{name} needs finite numbers, got NaN or infinity")
    off = matrix_defect(exact)
    if off > TOLERANCE:
        raise ValueError(
            f"{name} needs orthonormal rows, D D^T = I, but |D D^T - I| = {off:.3g} (at most {TOLERANCE:g}): "
            "orthonormalize them, as by torch.linalg.qr(matrix.T).Q.T"
        )
    return exact
