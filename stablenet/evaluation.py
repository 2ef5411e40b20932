"""How well a denoiser does: mean PSNR over images at given noise levels.

Source: y = x + sigma n with n standard normal, unclipped; PSNR against a peak of 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from stablenet.images.photographs import Items, add_noise, as_image
from stablenet.images.quality import psnr
from stablenet.networks import Guided


class ImageDenoiser(Protocol):
    """A module that is called with (image, noise level), for images of `channels` channels."""

    @property
    def channels(self) -> int: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def __call__(self, x: Tensor, sigma: float | Tensor, /) -> Tensor: ...


class OwnGuide(nn.Module):
    """A guided denoiser whose guides are its own estimates (`Guided.denoise`): of this map of the image no theorem speaks."""

    def __init__(self, guided: Guided) -> None:
        super().__init__()
        self.guided, self.channels = guided, guided.channels

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.guided.denoise(x, sigma)


@torch.inference_mode()
def evaluate(denoiser: ImageDenoiser, images: Items, noise_levels: Sequence[float], *, seed: int = 0) -> dict[float, float]:
    """Mean PSNR in dB over a dataset at each noise level; image k gets the noise of seed + k, the same at any level.

    A guided denoiser is taken as `OwnGuide`.
    """
    denoiser = OwnGuide(denoiser) if isinstance(denoiser, Guided) else denoiser
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
