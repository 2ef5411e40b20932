"""Losses: for classifiers the margin that certifies is pushed, for denoisers the error of a pixel is measured.

Source: cross-entropy with offset and temperature [Prach2022]; radii (f_y - f_j)/Lip(f_y - f_j) are docs/theorems.md, R1. The
absolute error of denoisers is that of [Goujon2023]: texture, where errors are large, rules it less than it rules their square.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Loss(Protocol):
    """A mean over a batch, as `cross_entropy`."""

    def __call__(self, logits: Tensor, labels: Tensor, constants: Tensor, *, offset: float, temperature: float) -> Tensor: ...


def cross_entropy(logits: Tensor, labels: Tensor, constants: Tensor, *, offset: float, temperature: float) -> Tensor:
    """temperature CE((f - sqrt(2) offset e_y)/temperature): a right logit counts only beyond a margin of sqrt(2) offset.

    logits (batch, classes), labels (batch,) integers, constants (unused here, see `certified_cross_entropy`); offset in
    units of the radius, an l2 distance for images in [0, 1].
    """
    shift = math.sqrt(2) * offset * functional.one_hot(labels, logits.shape[1])
    return temperature * functional.cross_entropy((logits - shift) / temperature, labels)


def multi_margin(logits: Tensor, labels: Tensor, constants: Tensor, *, offset: float, temperature: float) -> Tensor:
    """The mean over wrong classes of max(0, sqrt(2) offset - (f_y - f_j)); arguments as in `cross_entropy`."""
    return functional.multi_margin_loss(logits, labels, margin=math.sqrt(2) * offset)


def certified_cross_entropy(logits: Tensor, labels: Tensor, constants: Tensor, *, offset: float, temperature: float) -> Tensor:
    """Cross-entropy over radii: t log(1 + sum over j != y of exp((offset - r_j)/t)), r_j = (f_y - f_j)/L_yj, t the temperature.

    constants (classes, classes) are L, differentiable where the head learns them; the diagonal is not used.
    """
    margins = logits.gather(1, labels[:, None]) - logits
    own = functional.one_hot(labels, logits.shape[1]).bool()
    radii = margins / torch.where(own, 1.0, constants[labels].to(logits.dtype))
    return temperature * torch.logsumexp(torch.where(own, 0.0, offset - radii) / temperature, 1).mean()


LOSSES: dict[str, Loss] = {
    "cross-entropy": cross_entropy,
    "multi-margin": multi_margin,
    "certified-cross-entropy": certified_cross_entropy,
}


class PixelError(Protocol):
    """What an error e of a pixel counts, elementwise, nonnegative and 0 at 0."""

    def __call__(self, error: Tensor) -> Tensor: ...


def square(error: Tensor) -> Tensor:
    """e^2: its mean over images is what PSNR measures."""
    return error.square()


def absolute(error: Tensor) -> Tensor:
    """|e|."""
    return error.abs()


def charbonnier(error: Tensor) -> Tensor:
    """sqrt(e^2 + c^2) - c = e^2 / (sqrt(e^2 + c^2) + c), c = 1/255: |e| beyond one step of 8 bits, smooth at 0."""
    return error.square() / ((error.square() + CORNER**2).sqrt() + CORNER)


CORNER = 1 / 255
ERRORS: dict[str, PixelError] = {"square": square, "absolute": absolute, "charbonnier": charbonnier}
