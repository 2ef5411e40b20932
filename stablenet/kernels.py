"""Kernels of wide networks in closed form: arc-cosine of order one, tangent kernels, and T steps of a block with ReLU.

Source: [ChoSaul2009]; tangent kernels [Jacot2018]; the kernel of T steps is docs/theorems.md, K7, the tangent kernels are M1.
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
    _require_points(X, Z)
    sizes, cosine = _sizes_and_cosines(X, Z)
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


def gated_ntk(X: Tensor, Z: Tensor) -> Tensor:
    """E[1(w.x >= 0) 1(w.z >= 0)] x.z for w ~ N(0, I): x.z (pi - t)/(2 pi), t the angle.

    The tangent kernel of a gated network sum_i 1(g_i.x >= 0) v_i.x with Gaussian gates, and the first layer's part of `ntk`.
    Shapes and errors as for `arc_cosine`; 0 where a point is 0. Not differentiable at parallel points, where autograd gives the
    mean of the one-sided derivatives.
    """
    _require_points(X, Z)
    sizes, cosine = _sizes_and_cosines(X, Z)
    return sizes * _gated(cosine)


def ntk(X: Tensor, Z: Tensor) -> Tensor:
    """x.z (pi - t)/(2 pi) + |x||z| (sin t + (pi - t) cos t)/(2 pi), t the angle: the tangent kernel of two layers with ReLU.

    The limit m -> infinity of <grad f(x), grad f(z)> for f(x) = sum_j u_j max(w_j.x, 0)/sqrt(m), all weights N(0, 1), the
    gradient in both layers; `gated_ntk` is the first layer's part, `arc_cosine` the second's. Shapes, errors and derivatives as
    there; |x|^2 at z = x.
    """
    return gated_ntk(X, Z) + arc_cosine(X, Z)


def _require_points(X: Tensor, Z: Tensor) -> None:
    if not (X.ndim == Z.ndim == 2 and X.shape[1] == Z.shape[1] and X.dtype == Z.dtype and X.dtype.is_floating_point):
        raise ValueError(
            f"X and Z must be real matrices (points, features) of as many columns, got {tuple(X.shape)} {X.dtype} and "
            f"{tuple(Z.shape)} {Z.dtype}"
        )


def _sizes_and_cosines(X: Tensor, Z: Tensor) -> tuple[Tensor, Tensor]:
    """|x||z| and the cosine of the angle, 0 where a point is 0; both (n, m)."""
    sizes = torch.linalg.vector_norm(X, dim=1)[:, None] * torch.linalg.vector_norm(Z, dim=1)
    X, Z = (functional.normalize(points, dim=1, eps=torch.finfo(X.dtype).tiny) for points in (X, Z))
    return sizes, X @ Z.T


def _gated(cosine: Tensor) -> Tensor:
    """cos t (pi - t)/(2 pi)."""
    inside = torch.where(cosine.abs() < 1, cosine, 0.0)
    ends = torch.where(cosine >= 1, cosine / 2, 0.0)
    return torch.where(cosine.abs() < 1, inside * (math.pi - torch.arccos(inside)) / (2 * math.pi), ends)
