"""How well a denoiser does: mean PSNR over images at given noise levels.

Source: y = x + sigma n with n standard normal, unclipped; PSNR against a peak of 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stablenet.images.photographs import Items, add_noise, as_image
from stablenet.images.quality import psnr


@torch.inference_mode()
def evaluate(denoiser: nn.Module, images: Items, noise_levels: Sequence[float], *, seed: int = 0) -> dict[float, float]:
    """Mean PSNR in dB over a dataset at each noise level; image k gets the noise of seed + k, the same at any level.

    denoiser : any module with `channels` that is called with (image, noise level).
    """
    device = next(denoiser.parameters()).device
    table = {}
    for level in noise_levels:
        scores = []
        for k in range(len(images)):
            clean = as_image(images[k], denoiser.channels)[None]
            clean = clean.float() / 255 if clean.dtype == torch.uint8 else clean.float()
            noisy = add_noise(clean, level, torch.Generator().manual_seed(seed + k))
            scores.append(psnr(denoiser(noisy.to(device), level).cpu(), clean))
        table[level] = sum(scores) / len(scores)
    return table
