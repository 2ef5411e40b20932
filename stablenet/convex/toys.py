"""Synthetic data on which networks and their kernels part.

Source: noisy 2-XOR is the distribution of [Wei2019], section 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

CORNERS = ((1, 0), (-1, 0), (0, 1), (0, -1))
"""(x_1, x_2); the first two have the label 1."""


def noisy_xor(
    n: int, d: int, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """n points in d dimensions and their labels: y = |x_1| - |x_2|, all other coordinates noise.

    (x_1, x_2) is uniform on (1, 0), (-1, 0), where y = 1, and (0, 1), (0, -1), where y = -1; x_3 to x_d are uniform signs. Four
    neurons solve it, with the normalized margin 1/8, which is the largest of the distribution (docs/theorems.md, M4).

    Parameters
    ----------
    generator : of the draw, on the processor; none takes torch's own.

    Returns
    -------
    X (n, d) and y (n,), of the same real dtype.

    Raises
    ------
    ValueError : n below 1, d below 2.
    """
    if n < 1 or d < 2:
        raise ValueError(f"noisy 2-XOR needs n >= 1 points in d >= 2 dimensions, got n = {n}, d = {d}")
    corner = torch.randint(4, (n,), generator=generator)
    noise = 2 * torch.randint(2, (n, d - 2), generator=generator) - 1
    X = torch.cat([torch.tensor(CORNERS)[corner], noise], 1).to(dtype)
    return X, torch.where(corner < 2, 1, -1).to(dtype)


def xor_population(d: int, *, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """All 2^d points of noisy 2-XOR in d dimensions, each once, and their labels: X (2^d, d), y (2^d,).

    Raises
    ------
    ValueError : d below 2, or above 20, where they are more than a million.
    """
    if not 2 <= d <= 20:
        raise ValueError(f"the population has 2^d points: d must lie in 2..20, got {d}; draw some with noisy_xor")
    bits = torch.arange(2 ** (d - 2))[:, None] >> torch.arange(d - 2) & 1
    corners = torch.tensor(CORNERS).repeat_interleave(len(bits), 0)
    X = torch.cat([corners, (2 * bits - 1).repeat(4, 1)], 1).to(dtype)
    return X, (corners[:, 0].abs() - corners[:, 1].abs()).to(dtype)
