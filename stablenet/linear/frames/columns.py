"""What frames share: sizes that fit, and how alike two columns are.

Source: coherence as in [LyuTsang2021], the largest |<a, b>|/(|a| |b|) over two different columns.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from stablenet.linear.protocol import require_positive

BLOCK = 1024


def require_sizes(name: str, dimension: int, size: int) -> None:
    """Raise ValueError unless 1 <= dimension <= size, as D D^T = I needs."""
    require_positive(dimension=dimension, size=size)
    if dimension > size:
        raise ValueError(f"{name} needs dimension <= size, as D D^T = I does, got {dimension} > {size}")


def distinct(frequencies: Iterable[int], count: int, end: int) -> tuple[int, ...]:
    """The frequencies, if they are `count` different ones in [0, end).

    Raises
    ------
    ValueError : telling what is needed.
    """
    chosen = tuple(int(k) for k in frequencies)
    if len(chosen) != count or len(set(chosen)) != count or not all(0 <= k < end for k in chosen):
        raise ValueError(f"frequencies must be {count} distinct numbers in [0, {end}), got {chosen}")
    return chosen


def largest_cosine(matrix: Tensor) -> float:
    """The largest |cosine| between two columns of a (d, N) matrix, columns that are zero left out."""
    columns = torch.nn.functional.normalize(matrix.double(), dim=0, eps=1e-30)
    largest = 0.0
    for start in range(0, columns.shape[1], BLOCK):
        cosines = (columns[:, start : start + BLOCK].T @ columns).abs()
        here = torch.arange(len(cosines))
        cosines[here, start + here] = 0
        largest = max(largest, float(cosines.max()))
    return min(largest, 1.0)
