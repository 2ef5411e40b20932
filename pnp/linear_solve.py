"""Conjugate gradients for (I + gamma A^T A) p = b with an a posteriori error bound [HestenesStiefel1952].

I + gamma A^T A >= I, so that |p - solution| <= |b - (I + gamma A^T A) p|: the residual bounds the error.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ROUNDING = 8  # units in the last place of |b| to which a residual is known
REACHABLE = 50  # units in the last place of |b| that conjugate gradients reach


def per_image(x: Tensor) -> Tensor:
    """The norm of each image of a batch, (batch,)."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def shifted_solve(
    normal: Callable[[Tensor], Tensor], b: Tensor, start: Tensor, shift: float, *, accuracy: float = 0.0, budget: int = 500
) -> tuple[Tensor, Tensor]:
    """Solve p + gamma normal(p) = b, gamma = shift > 0, each image by itself, and a bound of its error, (batch,).

    Parameters
    ----------
    normal : x -> A^T A x, symmetric and positive semidefinite.
    b, start : (batch, ...).
    accuracy : the error allowed to each image; rounding, `REACHABLE` eps |b|, is always allowed.
    budget : applications of `normal`, after which it gives up.

    Raises
    ------
    RuntimeError : the accuracy was not reached.
    """

    def matrix(x: Tensor) -> Tensor:
        return x + shift * normal(x)

    tiny = torch.finfo(b.dtype).tiny
    unit = torch.finfo(b.dtype).eps * per_image(b)
    target = torch.maximum(REACHABLE * unit, accuracy - ROUNDING * unit)
    p = start
    while True:
        r = direction = b - matrix(p)
        norm = per_image(r)
        if bool((norm <= target).all()):
            return p, norm + ROUNDING * unit
        if budget <= 0 or not bool(torch.isfinite(norm).all()):
            raise RuntimeError(
                f"the proximal operator reached an error of {float(norm.max()):.3g} where {float(target.max()):.3g} is "
                "needed: take a smaller step_size, float64, or PGD, which needs no proximal operator"
            )
        while budget > 0 and bool((norm > target / 2).any()):
            budget -= 1
            image = matrix(direction)
            step = norm**2 / (direction * image).flatten(1).sum(1).clamp(min=tiny)
            step = torch.where(norm > target / 2, step, 0.0)
            p, r = p + _column(step, b) * direction, r - _column(step, b) * image
            previous, norm = norm, per_image(r)
            direction = r + _column((norm / previous.clamp(min=tiny)) ** 2, b) * direction
        budget -= 1


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))
