"""Profiles of ridge potentials: odd, piecewise linear phi = psi' with slopes in [-rho, mu] and psi >= 0, by construction.

Source: docs/theorems.md, V1; learned splines in convex and weakly convex ridge regularizers are [Goujon2023; Goujon2024].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def knots(segments: int) -> list[float]:
    """Where phi bends, in units of the scale: 1/2, 1, 2, 4, ..."""
    return [2.0 ** (j - 1) for j in range(segments)]


def within(relative: Tensor, steepest: Tensor, weak_convexity: float) -> Tensor:
    """Slopes (filters, segments) in [-rho, mu], as near to mu `relative` as phi(v) >= 0 for v >= 0 allows.

    relative (filters, segments), steepest mu > 0 (a number), weak_convexity rho >= 0; differentiable.
    """
    ends = relative.new_tensor(knots(relative.shape[1]))
    value, slopes = relative.new_zeros(len(relative)), []
    for wanted, width in zip(relative.unbind(1), torch.diff(ends, prepend=ends.new_zeros(1)), strict=True):
        low = torch.clamp(-value / width, min=-weak_convexity)
        slope = torch.minimum(torch.maximum(steepest * wanted, low), steepest)
        value = value + slope * width
        slopes.append(slope)
    return torch.stack(slopes, 1)


def bends(slopes: Tensor) -> Tensor:
    """a with phi(v) = sum_j a_j clamp(v, -t_j, t_j), t the knots: phi is constant beyond the last."""
    return slopes - functional.pad(slopes[:, 1:], (0, 1))


def _by_knot(a: Tensor) -> list[tuple[float, Tensor]]:
    """(t_j, a_j), innermost first; each a_j side by side in memory, without which a sweep takes four times as long."""
    return list(zip(knots(a.shape[1]), a.t().contiguous().unbind(), strict=True))


def gradient(v: Tensor, a: Tensor) -> Tensor:
    """phi(v) = sum_j a_j clamp(v, -t_j, t_j); v (..., outputs), a (outputs, segments)."""
    (t, bend), *inner = reversed(_by_knot(a))
    part = v.clamp(-t, t)
    value = part * bend
    for t, bend in inner:
        value.addcmul_(part.clamp_(-t, t), bend)
    return value


def energy_and_gradient(v: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """psi(v) = sum_j a_j c_j (|v| - c_j/2), c_j = min(|v|, t_j), and phi(v)."""
    part, value, squares = torch.empty_like(v), torch.zeros_like(v), torch.zeros_like(v)
    for t, bend in _by_knot(a):
        torch.clamp(v, -t, t, out=part)
        value.addcmul_(part, bend)
        squares.addcmul_(part.square_(), bend)
    return v * value - squares / 2, value


def differentiable(v: Tensor, a: Tensor) -> Tensor:
    """`gradient`, for automatic differentiation in v and a."""
    return sum((bend * v.clamp(-t, t) for t, bend in _by_knot(a)), torch.zeros_like(v))


def slope(v: Tensor, a: Tensor) -> Tensor:
    """phi'(v), from the left where phi bends."""
    part = torch.zeros_like(v)
    for t, bend in _by_knot(a):
        part.addcmul_((v.abs() <= t).to(v.dtype), bend)
    return part


def weight(v: Tensor, a: Tensor) -> Tensor:
    """phi(v)/v >= 0, and phi'(0) at 0: what iterative reweighting multiplies v by."""
    magnitude = v.abs().clamp_(min=torch.finfo(v.dtype).tiny ** 0.5)
    return gradient(magnitude, a).clamp_(min=0) / magnitude  # phi >= 0 up to rounding
