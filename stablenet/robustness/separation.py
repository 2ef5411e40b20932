"""The separator of the largest margin in the space of a kernel, without an intercept: a support vector machine.

Source: [BoserGuyonVapnik1992]; block principal pivoting [JudicePires1994]. Statement: docs/theorems.md, M2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

JITTER = 1e-10
"""Of the mean of the diagonal, added to it, so that a kernel matrix that is singular can be solved with."""
PATIENCE = 3
"""Block exchanges that may fail to lessen the violations before one index is exchanged at a time."""


@dataclass(frozen=True)
class Separation:
    """f(x) = sum_i coefficients_i K(x_i, x), of least norm |f| in the kernel's space among those with y_i f(x_i) >= 1.

    coefficients : (n,) float64.
    margin : min_i y_i f(x_i)/|f|.
    upper_bound : what no separator of this kernel exceeds, to rounding: the largest margin is the least
        |sum_i p_i y_i K(x_i, .)| over convex weights p, here at p = |coefficients|/sum.
    """

    coefficients: Tensor
    margin: float
    upper_bound: float


def separate(kernel: Tensor, y: Tensor) -> Separation:
    """Minimize a^T Q a/2 - sum a over a >= 0, Q = K_ij y_i y_j: the dual of the hard-margin problem.

    Block principal pivoting: solve on the free indices, exchange all that violate a >= 0 or Qa >= 1, and only the last of them
    once that has stopped helping, which ends for every positive definite Q.

    Parameters
    ----------
    kernel : (n, n), symmetric and positive semidefinite; computed in float64.
    y : (n,), labels 1 and -1.

    Raises
    ------
    ValueError : shapes that do not match, entries that are not finite, other labels, points that the kernel does not separate.
    """
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or y.shape != kernel.shape[:1] or not len(y):
        raise ValueError(f"a kernel matrix (n, n) and labels (n,) are needed, got {tuple(kernel.shape)} and {tuple(y.shape)}")
    if not bool(torch.isfinite(kernel).all()):
        raise ValueError("the kernel matrix has entries that are not finite: look at the data")
    if not torch.allclose(kernel, kernel.T, rtol=1e-4, atol=1e-6 * float(kernel.abs().max())):
        raise ValueError("the kernel matrix is not symmetric: it must be K(X, X) of the points that the labels are of")
    if not bool((y.abs() == 1).all()):
        raise ValueError(f"labels must be 1 and -1, got {sorted(set(y.tolist()))[:5]}")
    y = y.double()
    Q = kernel.double() * y[:, None] * y
    jitter = (JITTER * Q.diagonal().mean()).clamp_min(torch.finfo(Q.dtype).tiny)
    a = _nonnegative_minimizer(Q + jitter * torch.eye(len(Q), dtype=Q.dtype, device=Q.device))
    values, total = Q @ a, float(a.sum())
    norm = float((a @ values).clamp_min(0).sqrt())
    if not (norm > 0 and float(values.min()) > 0.5):
        raise ValueError(f"the kernel does not separate the {len(y)} points: are there equal points of unequal labels?")
    return Separation(a * y, float(values.min()) / norm, norm / total)


def _nonnegative_minimizer(Q: Tensor) -> Tensor:
    """argmin a^T Q a/2 - sum a over a >= 0 for a positive definite Q."""
    size = len(Q)
    free = torch.ones(size, dtype=torch.bool, device=Q.device)
    fewest, patience = size + 1, PATIENCE
    for _ in range(100 + 10 * size):
        a = torch.zeros(size, dtype=Q.dtype, device=Q.device)
        index = free.nonzero()[:, 0]
        if len(index):
            a[index] = torch.linalg.solve(Q[index][:, index], torch.ones_like(a[index]))
        wrong = (free & (a < -1e-12 * a.abs().max())) | (~free & (Q @ a < 1 - 1e-9))
        count = int(wrong.sum())
        if not count:
            return a.clamp_min(0)
        if count < fewest:
            fewest, patience = count, PATIENCE
        else:
            patience -= 1
        if patience < 0:
            wrong = torch.zeros_like(wrong).index_fill_(0, wrong.nonzero()[-1], True)
        free = free ^ wrong
    raise ValueError("the kernel matrix is too near to a singular one to be solved with: are there nearly equal points?")
