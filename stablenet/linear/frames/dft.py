"""Rows of the discrete Fourier transform as a real frame: products by FFT [LyuTsang2021].

Source: F F^* = I for distinct rows of the unitary transform (docs/theorems.md, O1); coherence of a subgroup by Gauss sums (O2).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stablenet.linear.frames.columns import distinct, require_sizes
from stablenet.linear.products import Table, in_single, require_features, through

DRAWS = 64
"""Sets of frequencies, or of rows, of which the least coherent is taken."""


class DFT(nn.Module):
    """[[Re F, -Im F], [Im F, Re F]], F = m rows of the unitary n x n Fourier matrix, d = 2 m and N = 2 n, interleaved.

    Features 2 j and 2 j + 1 are real and imaginary part of entry j, so that complex numbers are read where they lie.

    Parameters
    ----------
    dimension, size : d and N, even, d <= N.
    frequencies : the rows, d/2 distinct numbers in [0, N/2); None takes the least coherent of 64 fixed draws; "subgroup"
        the subgroup of order d/2 of the integers modulo N/2, which must be prime with d/2 a divisor of N/2 - 1.

    Shapes: forward (..., N) to (..., d), adjoint (..., d) to (..., N). Half precision is computed in float32.

    Raises
    ------
    ValueError : sizes or frequencies that do not fit.
    """

    axis: int = -1

    def __init__(self, dimension: int, size: int, frequencies: Sequence[int] | str | None = None) -> None:
        super().__init__()
        require_sizes("DFT", dimension, size)
        if dimension % 2 or size % 2:
            raise ValueError(f"DFT needs an even dimension and size, real and imaginary parts, got {dimension} and {size}")
        self.dimension, self.size = dimension, size
        self.frequencies = _chosen(dimension // 2, size // 2, frequencies)
        rows = torch.tensor(self.frequencies)
        self._rows, left_out = Table(rows), torch.ones(size // 2, dtype=torch.float64)
        left_out[rows] = 0
        self._left_out = Table(left_out)

    def forward(self, y: Tensor) -> Tensor:
        return through(self._product, self._transpose, require_features("DFT", y, self.size))

    def adjoint(self, u: Tensor) -> Tensor:
        return through(self._transpose, self._product, require_features("the adjoint of DFT", u, self.dimension))

    def complement(self, y: Tensor) -> Tensor:
        """(I - D^T D) y: two transforms, the frequencies of D left out between them."""
        spectrum = torch.fft.fft(_complex(require_features("DFT", y, self.size)))
        return _real(torch.fft.ifft(spectrum.mul_(self._left_out.like(spectrum))), y)

    def _product(self, y: Tensor) -> Tensor:
        spectrum = torch.fft.fft(_complex(y), norm="ortho")
        return _real(spectrum.index_select(-1, self._rows.on(y.device)), y)

    def _transpose(self, u: Tensor) -> Tensor:
        values = _complex(u)
        spectrum = values.new_zeros(*u.shape[:-1], self.size // 2).index_copy(-1, self._rows.on(u.device), values)
        return _real(torch.fft.ifft(spectrum, norm="ortho"), u)

    def dense(self) -> Tensor:
        """D as a (d, N) matrix in float64, from cosines and sines."""
        n = self.size // 2
        turns = torch.tensor(self.frequencies)[:, None] * torch.arange(n) % n
        angle = turns.double() * (2 * math.pi / n)
        rows = [torch.stack([angle.cos(), angle.sin()], -1), torch.stack([-angle.sin(), angle.cos()], -1)]
        return torch.stack(rows, 1).reshape(self.dimension, self.size) / math.sqrt(n)

    @property
    def coherence(self) -> float:
        """The largest |cosine| between two columns of D: the largest real or imaginary part of the rows' transform."""
        return _coherence(self.frequencies, self.size // 2)

    def extra_repr(self) -> str:
        return f"{self.dimension}, {self.size}"


def _complex(y: Tensor) -> Tensor:
    """Pairs of features as complex numbers: the same memory, if it begins at a pair."""
    pairs = in_single(y).unflatten(-1, (-1, 2)).contiguous()
    return torch.view_as_complex(pairs if pairs.storage_offset() % 2 == 0 else pairs.clone())


def _real(z: Tensor, like: Tensor) -> Tensor:
    return torch.view_as_real(z).flatten(-2).to(like.dtype)


def _coherence(frequencies: Sequence[int], n: int) -> float:
    rows = torch.zeros(n, dtype=torch.float64)
    rows[torch.tensor(frequencies)] = 1 / len(frequencies)
    parts = torch.view_as_real(torch.fft.fft(rows)[1:]).abs()
    return float(parts.max()) if n > 1 else 0.0


def _chosen(count: int, n: int, frequencies: Sequence[int] | str | None) -> tuple[int, ...]:
    if frequencies is None:
        generator = torch.Generator().manual_seed(0)
        draws = [tuple(sorted(torch.randperm(n, generator=generator)[:count].tolist())) for _ in range(DRAWS)]
        return min(draws, key=lambda rows: _coherence(rows, n))
    if isinstance(frequencies, str):
        if frequencies != "subgroup":
            raise ValueError(f'frequencies must be None, numbers or "subgroup", got {frequencies!r}')
        return _subgroup(count, n)
    return distinct(frequencies, count, n)


def _subgroup(order: int, n: int) -> tuple[int, ...]:
    """The subgroup of an order that divides n - 1, n prime: the powers of h^((n - 1)/order) for some h."""
    if not (_is_prime(n) and (n - 1) % order == 0):
        fitting = next(p for k in itertools.count(1) for p in (n - k, n + k) if _is_prime(p) and (p - 1) % order == 0)
        raise ValueError(
            f"a subgroup of dimension/2 = {order} frequencies needs size/2 prime with {order} a divisor of size/2 - 1, "
            f"got size/2 = {n}: the nearest fitting size is {2 * fitting}"
        )
    for h in range(1, n):
        root = pow(h, (n - 1) // order, n)
        powers = {pow(root, k, n) for k in range(order)}
        if len(powers) == order:
            return tuple(sorted(powers))
    raise AssertionError("the group of a prime is cyclic")


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % k for k in range(2, math.isqrt(n) + 1))
