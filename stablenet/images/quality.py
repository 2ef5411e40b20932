"""Peak signal-to-noise ratio, the one that every table, card and command of the project prints."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr(estimate: Tensor, reference: Tensor) -> float:
    """-10 log10 mean (estimate - reference)^2 in dB, for images in [0, 1] (peak 1), unclipped, over all entries."""
    return float(-10 * torch.log10((estimate.double() - reference.double()).square().mean()))
