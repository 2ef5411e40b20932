"""What denoisers ask of an image and of a noise level, and how they are conditioned on it: linearly between knots.

Source: docs/denoiser-design.md.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

KNOTS = (0.0, 5 / 255, 15 / 255, 25 / 255, 35 / 255, 50 / 255)
"""Noise levels at which networks keep parameters, where the largest level is 50/255."""


class OfImages(Protocol):
    """A network of images with so many channels."""

    training: bool

    @property
    def channels(self) -> int: ...


def check_image(network: OfImages, x: Tensor, dtype: torch.dtype) -> None:
    """Raise ValueError for what is no image of the network's channels and precision, or holds NaN or infinity."""
    if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != network.channels or x.numel() == 0:
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x must have shape (batch, {network.channels}, height, width), not empty; got {shape}")
    if x.dtype != dtype:
        raise ValueError(
            f"x has dtype {x.dtype} but the weights are {dtype}: scale images to [0, 1] and convert x with "
            f".to({dtype}), or the network with .to({x.dtype})"
        )
    if not (network.training or torch.compiler.is_compiling() or torch.isfinite(x.sum())):
        raise ValueError("x holds NaN or infinity: check the measurement or the step that produced it")


def checked_levels(sigma: float | Tensor | None, x: Tensor, largest: float) -> Tensor:
    """(batch,) noise levels in [0, largest], or a ValueError."""
    if sigma is None:
        raise ValueError("sigma, the noise level, is missing: a standard deviation for images in [0, 1], as 25/255")
    levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1)
    if torch.compiler.is_compiling():  # an exported graph cannot look at their values: it clamps them (`stablenet.graphs`)
        return levels
    if levels.numel() not in (1, len(x)):
        raise ValueError(f"sigma must be a number or hold one per image ({len(x)}), got {levels.numel()} values")
    low, high = float(levels.min()), float(levels.max())
    if not (low >= 0 and high <= largest * (1 + 1e-6)):
        raise ValueError(
            f"sigma must lie in [0, {largest:.4g}] for images in [0, 1], got {low:.4g} to {high:.4g}; a noise "
            "level given for images in [0, 255] must be divided by 255"
        )
    return levels.expand(len(x)).contiguous()


def checked_noise(noise_level: float | Tensor, x: Tensor) -> Tensor:
    """(batch,) standard deviations of a measurement's noise, or a ValueError."""
    noise = torch.as_tensor(noise_level, dtype=x.dtype, device=x.device).reshape(-1)
    if noise.numel() not in (1, len(x)) or not bool((torch.isfinite(noise) & (noise >= 0)).all()):
        raise ValueError(f"noise_level must be finite and >= 0, a number or one per image ({len(x)}), got {noise.tolist()}")
    return noise.expand(len(x)).contiguous()


def interpolation(levels: Tensor, knots: Tensor) -> Tensor:
    """(batch, knots): the weights of linear interpolation between the knots of the noise level."""
    right = (levels[:, None] >= knots).sum(1).clamp(1, len(knots) - 1)  # ONNX has no searchsorted
    low, high = knots[right - 1], knots[right]
    part = ((levels - low) / (high - low)).clamp(0, 1)[:, None]
    rows = torch.arange(len(knots), device=levels.device)
    return (rows == right[:, None] - 1) * (1 - part) + (rows == right[:, None]) * part


def require_fixed(guide: Tensor) -> None:
    """Refuse a guide through which a gradient would flow back to what it was made of."""
    if guide.requires_grad:
        raise ValueError("the guide requires a gradient, so it would follow x: pass guide.detach(), and hold it fixed")


def is_recorded(module: nn.Module, *inputs: object) -> bool:
    """Whether what the module computes of these inputs will be differentiated: gradients are on, and something wants one."""
    wanted = (t for t in (*inputs, *module.parameters()) if isinstance(t, Tensor))
    return torch.is_grad_enabled() and any(t.requires_grad for t in wanted)
