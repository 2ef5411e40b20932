"""Forms of the odd linear spline scale sign(u) sum_j p_j clamp(|u|/scale - j, 0, 1): one value, several ways to compute it.

Source: docs/theorems.md, T5; learned spline nonlinearities in convex regularizers are [Goujon2023].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def odd_spline(u: Tensor, scale: Tensor, slopes: Tensor) -> Tensor:
    """scale sign(u) sum_j p_j clamp(|u|/scale - j, 0, 1), the formula as it stands: what the compiler fuses."""
    v = _wide(u) / scale
    magnitude = v.abs()
    value = torch.zeros_like(v)
    for j, p in enumerate(slopes.reshape(*slopes.shape, *[1] * (u.ndim - 2)).unbind(1)):
        value = value + p * (magnitude - j).clamp(0, 1)
    return (value * scale * v.sign()).to(u.dtype)


SWEPT_SEGMENTS = 24
"""Up to so many, sweeps over whole tensors beat two look-ups an element, measured on a CPU."""


def evaluated_spline(u: Tensor, scale: Tensor, slopes: Tensor) -> Tensor:
    """The same value without a compiler and without gradients, the faster way."""
    return (swept_spline if slopes.shape[1] <= SWEPT_SEGMENTS else gathered_spline)(u, scale, slopes)


def swept_spline(u: Tensor, scale: Tensor, slopes: Tensor) -> Tensor:
    """The same value as sum_j scale (p_j - p_(j+1)) clamp(u/scale, -j-1, j+1): two sweeps a segment, no compiler needed.

    The clamps are taken from the outermost inwards, each of the one before; a scale for each pixel is multiplied with last.
    """
    slopes, segments, pixelwise = slopes.to(_wide(u).dtype), slopes.shape[1], scale.numel() > u.shape[0] * u.shape[1]
    bends = (slopes - functional.pad(slopes[:, 1:], (0, 1))).t().contiguous().unbind()  # sweeps want channels side by side
    weights = [bend.reshape(-1, *[1] * (u.ndim - 2)) * (1 if pixelwise else scale) for bend in bends]
    part = (_wide(u) * scale.reciprocal()).clamp_(-segments, segments)
    value = part * weights[-1]
    for j in range(segments - 1, 0, -1):
        value.addcmul_(part.clamp_(-j, j), weights[j - 1])
    return (value.mul_(scale) if pixelwise else value).to(u.dtype)


def gathered_spline(u: Tensor, scale: Tensor, slopes: Tensor) -> Tensor:
    """The same value by one table look-up an element: the cost does not grow with the number of knots."""
    channels, segments = slopes.shape
    v = u / scale
    magnitude = v.abs().clamp_(max=segments)
    index = magnitude.long().clamp_(max=segments - 1)
    magnitude -= index
    knots = torch.cat([slopes.new_zeros(channels, 1), slopes.cumsum(1)[:, :-1]], 1).to(v.dtype)
    offset = torch.arange(channels, device=u.device).mul_(segments).reshape(-1, *[1] * (u.ndim - 2))
    index += offset
    magnitude *= slopes.to(v.dtype).flatten().take(index)
    magnitude += knots.flatten().take(index)
    return (magnitude.mul_(scale).copysign_(v)).to(u.dtype)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _spline_rows_backward(grad: Tensor, u: Tensor, scale: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to u, to the scale and to the slopes (per image, before the factor `scale`), in one pass over the rows.

    u (batch, pixels, channels), scale (batch, channels), slopes (channels, segments).
    """
    grad = _wide(grad)
    v = _wide(u) * scale.reciprocal()[:, None]
    magnitude = v.abs()
    outward = torch.copysign(grad, grad * v)
    slope, value, parts = torch.zeros_like(v), torch.zeros_like(v), []
    for j in range(slopes.shape[1]):
        part = (magnitude - j).clamp(0, 1)
        slope = torch.where((magnitude > j) & (magnitude < j + 1), slopes[:, j], slope)
        value = value + slopes[:, j] * part
        parts.append((outward * part).sum(1))
    return (grad * slope).to(u.dtype), (outward * (value - slope * magnitude)).sum(1), torch.stack(parts, -1)


class FusedSpline(torch.autograd.Function):
    """The spline on images as one compiled kernel a direction, its gradient by hand: faster than the compiled formula's own.

    Nothing but u is kept for the backward pass; channels_last images are read as rows without a copy.
    """

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, u: Tensor, scale: Tensor, slopes: Tensor) -> Tensor:
        batch, channels, height, width = u.shape
        rows = u.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        context.save_for_backward(rows, _wide(scale.reshape(batch, channels)), slopes)
        return compiled(odd_spline)(u, scale, slopes)

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, scale, slopes = context.saved_tensors
        batch, channels, height, width = grad.shape
        grad = grad.permute(0, 2, 3, 1).reshape(rows.shape)
        to_u, to_scale, to_slopes = compiled(_spline_rows_backward)(grad, rows, scale, slopes)
        to_slopes = (to_slopes * scale[..., None]).sum(0)
        to_u = to_u.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return to_u, to_scale.view(batch, channels, 1, 1), to_slopes


@cache
def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(function, dynamic=False)
