"""The kernels that a denoiser starts from: a tight frame of cosines, so that the constraint wastes nothing at any frequency.

Source: docs/denoiser-design.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from stablenet.networks.architectures import DenoiserArchitecture


def initial_kernels(a: DenoiserArchitecture, weight: Tensor) -> Tensor:
    """The kernels to start from: cosines without the constant, |A|^2 = 1.85, plus small noise that tells blocks apart.

    With the noise and the excess of the certified bound z stays below 2: networks are nonexpansive before any `enforce`.

    All non-constant cosines of one size form a tight frame, so that the constraint wastes nothing at any frequency.
    Color takes the largest size that fits for luminance and the next for the two color differences.
    """
    side = a.kernel_size * (1 if weight.shape[1] == a.channels else a.scale)
    noise = 0.02 * torch.randn_like(weight) / math.sqrt(weight[0].numel())
    frames = [] if a.extra_channels else [*_atoms(a.channels, a.features, side)]
    if not frames:
        return 10 * noise
    atoms = torch.cat(frames)
    if weight.shape[1] != a.channels:
        r, k = a.scale, a.kernel_size
        shape = (len(atoms), a.channels, k, r, k, r)
        atoms = r * atoms.reshape(shape).permute(0, 1, 3, 5, 2, 4).reshape(len(atoms), *weight.shape[1:])
    noise[: len(atoms)] += 1.36 * atoms
    return noise


def _atoms(channels: int, features: int, side: int) -> Iterator[Tensor]:
    """Tight frames of norm 1, (count, channels, side, side), one a color axis, as many as fit."""
    axes = torch.eye(channels)
    if channels == 3:
        axes = functional.normalize(torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]]))
    left = features
    for i, axis in enumerate(axes):
        share = left if len(axes) - i == 1 else (left + 1) // 2 if i == 0 else left // (len(axes) - i)
        n = min(side, math.isqrt(share + 1))
        n -= (side - n) % 2
        if n < 2:
            continue
        grid = (torch.arange(n) + 0.5) * (math.pi / n)
        waves = functional.normalize(torch.cos(torch.arange(n)[:, None] * grid))
        order = sorted((i * i + j * j, i, j) for i in range(n) for j in range(n))[1:]
        atoms = torch.stack([waves[i][:, None] * waves[j] for _, i, j in order]) / n
        margin = (side - n) // 2
        atoms = functional.pad(atoms, [margin] * 4)
        left -= len(atoms)
        yield axis[:, None, None] * atoms[:, None]
