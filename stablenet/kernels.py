"""Kernels of wide networks in closed form: arc-cosine of order one, and what T steps of a block with ReLU make of it.

Source: [ChoSaul2009]; the kernel of T steps is docs/theorems.md, K7.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def arc_cosine(X: Tensor, Z: Tensor) -> Tensor:
    """E[max(w.x, 0) max(w.z, 0)] for w ~ N(0, I): |x||z| (sin t + (pi - t) cos t)/(2 pi), t the angle.

    Shapes: X (n, d), Z (m, d) to (n, m); values in [0, |x||z|/2]. Differentiable, at equal points too.

    Raises
    ------
    ValueError : not two real matrices of as many columns.
    """
    if not (X.ndim == Z.ndim == 2 and X.shape[1] == Z.shape[1] and X.dtype == Z.dtype and X.dtype.is_floating_point):
        raise ValueError(
            f"X and Z must be real matrices (points, features) of as many columns, got {tuple(X.shape)} {X.dtype} and "
            f"{tuple(Z.shape)} {Z.dtype}"
        )
    sizes = torch.linalg.vector_norm(X, dim=1)[:, None] * torch.linalg.vector_norm(Z, dim=1)
    X, Z = (functional.normalize(points, dim=1, eps=torch.finfo(X.dtype).tiny) for points in (X, Z))
    cosine = X @ Z.T
    inside = torch.where(cosine.abs() < 1, cosine, 0.0)
    between = (1 - inside.square()).sqrt() + inside * (math.pi - torch.arccos(inside))
    ends = torch.where(cosine >= 1, math.pi * cosine, 0.0)  # with the derivative pi, where arccos has none
    return sizes * torch.where(cosine.abs() < 1, between, ends) / (2 * math.pi)


def neural_optimization(X: Tensor, Z: Tensor, *, steps: int) -> Tensor:
    """K_T of a block with ReLU whose frame is infinitely wide: (2 - 2^(1 - T))^2 times `arc_cosine`, T = steps >= 1.

    Shapes and errors as for `arc_cosine`.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return (2 - 2.0 ** (1 - steps)) ** 2 * arc_cosine(X, Z)
