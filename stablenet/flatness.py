"""What a denoiser leaves of noise where there is nothing to keep, by frequency: the mottle that PSNR hardly counts.

Source: Parseval's identity, mean over pixels of r^2 = sum over frequencies of |R|^2 / pixels^2, R the transform of r.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import inf, sqrt

import torch
from torch import Tensor

from stablenet.images.photographs import add_noise

Band = tuple[float, float]
"""Radial frequencies from and below, in cycles a pixel."""
EDGES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, inf)
MOTTLE = (1 / 16, 1 / 4)
"""What the eye takes for brush strokes: structures of 4 to 16 pixels."""


def in_bands(residual: Tensor, edges: Sequence[float] = EDGES) -> dict[Band, float]:
    """The root mean square of `residual` (..., height, width) in each radial band; squares add up to the mean square."""
    r = residual.double()
    height, width = r.shape[-2:]
    power = torch.fft.fft2(r, norm="forward").abs().square().reshape(-1, height, width).mean(0)
    rows, columns = torch.fft.fftfreq(height, dtype=r.dtype), torch.fft.fftfreq(width, dtype=r.dtype)
    radius = torch.hypot(rows[:, None], columns[None]).to(r.device)
    inside = {(low, high): (radius >= low) & (radius < high) for low, high in pairwise(edges)}
    return {band: sqrt(float(power[where].sum())) for band, where in inside.items()}


@torch.inference_mode()
def flat_noise(
    denoise: Callable[[Tensor, float], Tensor],
    noise_level: float,
    *,
    channels: int = 1,
    edges: Sequence[float] = EDGES,
    size: int = 192,
    border: int = 32,
    seed: int = 0,
) -> dict[Band, float]:
    """What is left of white noise on a constant gray image, the root mean square in each radial band of frequencies.

    r = D(c + s n, s) - c with c = 1/2, n standard normal of size + 2 border pixels a side, looked at without the border.
    The perfect denoiser leaves s / size, the mean of the noise, the identity leaves s in all bands together.
    """
    clean = torch.full((1, channels, size + 2 * border, size + 2 * border), 0.5)
    noisy = add_noise(clean, noise_level, torch.Generator().manual_seed(seed))
    inner = slice(border, border + size)
    return in_bands((denoise(noisy, noise_level) - clean)[..., inner, inner], edges)


def total(bands: dict[Band, float], among: Band = (0.0, inf)) -> float:
    """The root mean square of the bands within `among` together."""
    return sqrt(sum(value**2 for (low, high), value in bands.items() if among[0] <= low and high <= among[1]))
