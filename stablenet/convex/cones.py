"""The cones K = {v : (2 D - I) X v >= 0} on which a neuron's gate stays as it is: projection, and v = a - b with a, b in K.

Source: Moreau's decomposition [Moreau1965] and nonnegative least squares [LawsonHanson1974]; the decomposition of a gated
network's vectors is that of [Mishkin2022], section 3. scipy solves the least squares, on the CPU and in double precision.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

REWEIGHTINGS = 30


class Projection(NamedTuple):
    """Points (k, d) of the cones and multipliers (k, n) >= 0 with points = v + B^T multipliers, B = (2 D - I) X."""

    points: Tensor
    multipliers: Tensor


def normals(X: Tensor, pattern: Tensor) -> Tensor:
    """B = (2 D - I) X, (n, d), of one pattern (n,) bool."""
    return torch.where(pattern[:, None], X, -X)


def project(X: Tensor, patterns: Tensor, V: Tensor) -> Projection:
    """The nearest points of the cones of patterns (k, n) bool to V (k, d).

    The multipliers are >= 0 whatever happens, so that |v + B^T multipliers| bounds the length of the projection from above.
    """
    data = X.detach().cpu().double().numpy()
    points, multipliers = np.zeros((len(V), data.shape[1])), np.zeros((len(V), len(data)))
    for k, (pattern, v) in enumerate(zip(patterns.cpu().numpy(), V.detach().cpu().double().numpy(), strict=True)):
        length = float(np.linalg.norm(v))
        B = np.where(pattern[:, None], data, -data)
        if length and (B @ v).min() < 0:
            multipliers[k] = length * _nonnegative(B.T, -v / length)
        points[k] = v + multipliers[k] @ B
    return Projection(torch.from_numpy(points).to(V), torch.from_numpy(multipliers).to(V))


def face(X: Tensor, pattern: Tensor, multipliers: Tensor) -> Tensor:
    """An orthonormal basis (d, q) of the span of the face onto which a projection with these multipliers fell."""
    active = X[multipliers > 0]
    if not len(active):
        return torch.eye(X.shape[1], dtype=X.dtype, device=X.device)
    _, s, right = torch.linalg.svd(active, full_matrices=True)
    return right[int((s > 1e-12 * s[0]).sum()) :].T


def decompose(X: Tensor, pattern: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """a, b in K with a - b = v and |a| + |b| nearly least, (d,) each; the cone must have interior.

    |a| + |b| is lowered by reweighted least squares: |a|^2/p + |b|^2/q is least over {B a >= max(0, B v)} at a projection of
    p v/(p + q), which is a least distance problem [LawsonHanson1974, chapter 23].

    Raises
    ------
    ValueError : v is no difference of two points of the cone: the pattern is not that of a cell.
    """
    B = normals(X, pattern).detach().cpu().double().numpy()
    w = v.detach().cpu().double().numpy()
    length = float(np.linalg.norm(w))
    if not length:
        return torch.zeros_like(v), torch.zeros_like(v)
    w, share, best = w / length, 0.5, None
    for _ in range(REWEIGHTINGS):
        a = share * w + _least_distance(B, np.maximum(B @ w, 0) - share * (B @ w))
        norms = np.linalg.norm(a), np.linalg.norm(a - w)
        if best is None or sum(norms) < best[0]:
            best = float(sum(norms)), a
        share = float(np.clip(norms[0] / sum(norms), 1e-6, 1 - 1e-6))
    assert best is not None
    a = torch.from_numpy(length * best[1]).to(v)
    return a, a - v


def _least_distance(B: np.ndarray, h: np.ndarray) -> np.ndarray:
    """The shortest x with B x >= h."""
    if h.max() <= 0:
        return np.zeros(B.shape[1])
    scale = float(np.abs(h).max())
    stacked = np.vstack([B.T, h / scale])
    target = np.zeros(len(stacked))
    target[-1] = 1
    residual = stacked @ _nonnegative(stacked, target) - target
    if -residual[-1] <= 1e-12:
        raise ValueError("the pattern is not that of a cell: its cone has no interior, take gates.enumerate or gates.sample")
    return -scale * residual[:-1] / residual[-1]


def _nonnegative(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """argmin |A x - b| over x >= 0; x = 0 where the active-set method does not end."""
    try:
        return np.asarray(nnls(A, b, maxiter=30 * max(A.shape))[0])
    except RuntimeError:
        return np.zeros(A.shape[1])
