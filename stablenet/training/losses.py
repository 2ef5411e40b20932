"""Losses for classifiers whose logits have known Lipschitz constants: what is pushed is the margin that certifies.

Source: cross-entropy with offset and temperature [Prach2022]; radii (f_y - f_j)/Lip(f_y - f_j) are docs/theorems.md, R1.
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
