"""The proximal map of a potential with a computable error: gradient steps of Barzilai and Borwein that fall back to safe ones.

Source: E(x) = |x - y|^2/2 + R(x) is (1 - M)-strongly convex for an M-weakly convex R, M < 1, so |x - prox_R(y)| <=
|grad E(x)|/(1 - M) (docs/theorems.md, V2); the steps are [BarzilaiBorwein1988].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from stablenet.certificate import NotCertified
from stablenet.potential import Denoised, Potential

LONGEST_STEP = 4.0
GROWTH = 20.0
"""How far the gradient may rise above its smallest before the iteration goes back there; at 2 it takes six times as long."""


def proximal_map(
    gradient: Callable[[Tensor], Tensor],
    y: Tensor,
    potential: Potential,
    *,
    accuracy: float,
    max_iterations: int = 500,
    start: Tensor | None = None,
) -> Denoised:
    """argmin |x - y|^2/2 + R(x), each image by itself; `gradient` is R's.

    accuracy : of the root mean square over an image's pixels; what the bound says where the iteration stops is in `error`,
        also where it stops earlier, at the precision of the numbers or after max_iterations.
    start : where the iteration begins; y if none is given.

    A step that lets |grad E| rise beyond GROWTH times its smallest is taken back, and 1/(1 + U) is taken from the best point:
    that step lessens E by at least |grad E|^2/(2 (1 + U)), so that the iteration comes to the minimum from anywhere.

    Raises
    ------
    NotCertified : M >= 1, no proximal map.
    """
    if not potential.has_proximal_map:
        raise NotCertified(f"weak convexity <= {potential.weak_convexity:.4g} must be below 1 for a proximal map")
    if not accuracy > 0:
        raise ValueError(f"accuracy must be positive, got {accuracy}")
    margin, safe = 1 - potential.weak_convexity, 1 / (1 + potential.smoothness_above)
    goal = max(accuracy * margin, 8 * torch.finfo(y.dtype).eps) * math.sqrt(y[0].numel())
    x = y if start is None else start
    slope = x - y + gradient(x)
    best, best_slope, smallest = x, slope, _norm(slope)
    step = torch.full_like(smallest, safe)
    for k in range(max_iterations):
        if bool((smallest <= goal).all()):
            break
        moved = x - _column(step, x) * slope
        found = moved - y + gradient(moved)
        step = _step(k, moved - x, found - slope, safe)
        size = _norm(found)
        better, worse = size < smallest, size > GROWTH * smallest
        best, best_slope = _where(better, moved, best), _where(better, found, best_slope)
        x, slope = _where(worse, best, moved), _where(worse, best_slope, found)
        step, smallest = torch.where(worse, safe, step), torch.where(better, size, smallest)
    return Denoised(best, smallest.double() / margin)


def _step(k: int, moved: Tensor, turned: Tensor, safe: float) -> Tensor:
    """<s, s>/<s, d> and <s, d>/<d, d> in turn, within [safe/2, LONGEST_STEP]."""
    along = _inner(moved, turned)
    step = along / _inner(turned, turned) if k % 2 else _inner(moved, moved) / along
    return torch.nan_to_num(step, nan=safe, posinf=safe, neginf=safe).clamp(safe / 2, LONGEST_STEP)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _norm(a: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a.flatten(1), dim=1)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _where(mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(_column(mask, a), a, b)
