"""Rows of the orthonormal discrete cosine transform as a frame: products by one real FFT [Makhoul1980].

Source: the rows of the orthonormal DCT-II are orthonormal (docs/theorems.md, O1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stablenet.linear.frames.columns import distinct, largest_cosine, require_sizes
from stablenet.linear.products import Table, in_single, require_features, through


class DCT(nn.Module):
    """D_kj = a_k cos(pi k (2 j + 1)/(2 N)), a_0 = sqrt(1/N), otherwise a_k = sqrt(2/N), for d frequencies k < N.

    With v = (y_0, y_2, ..., y_3, y_1) and W_k = exp(-i pi k/(2 N)) FFT(v)_k: (D y)_k = a_k Re W_k = -a_k Im W_(N-k).

    Parameters
    ----------
    dimension, size : d <= N.
    frequencies : the rows, d distinct numbers in [0, N); the lowest when None, whose columns are alike where they are near.

    Shapes: forward (..., N) to (..., d), adjoint (..., d) to (..., N). Half precision is computed in float32.

    Raises
    ------
    ValueError : d > N, or frequencies that do not fit.
    """

    axis: int = -1

    def __init__(self, dimension: int, size: int, frequencies: Sequence[int] | None = None) -> None:
        super().__init__()
        require_sizes("DCT", dimension, size)
        self.dimension, self.size = d, n = dimension, size
        self.frequencies = distinct(range(d) if frequencies is None else frequencies, d, n)
        folded = torch.cat([torch.arange(0, n, 2), torch.arange(1, n, 2).flip(0)])
        self._folded, self._unfolded = Table(folded), Table(folded.argsort())
        half, k = torch.arange(n // 2 + 1), torch.tensor(self.frequencies)
        angle, one = half.double() * (math.pi / (2 * n)), torch.ones(len(half), dtype=torch.float64)
        self._turn, self._back = Table(torch.polar(one, -angle)), Table(torch.polar(one, angle))
        gains = torch.where(k > 0, 2.0, 1.0).double().div(n).sqrt()
        # W as pairs of real numbers: X_k is part 2 k up to N/2, minus part 2 (N - k) + 1 beyond
        self._parts = Table(torch.where(2 * k <= n, 2 * k, 2 * (n - k) + 1))
        self._gains = Table(torch.where(2 * k <= n, gains, -gains))
        self._inverse = Table(1 / gains)
        places = torch.full((n + 1,), d).index_copy(0, k, torch.arange(d))
        source = places[torch.stack([half, n - half], 1).flatten()]  # the row of each part, d (a zero) where D has none
        self._source = Table(source)
        self._signs = Table(torch.tensor([1, -1]).repeat(len(half)))
        self._left_out = Table((source == d).double())

    def forward(self, y: Tensor) -> Tensor:
        return through(self._product, self._transpose, require_features("DCT", y, self.size))

    def adjoint(self, u: Tensor) -> Tensor:
        return through(self._transpose, self._product, require_features("the adjoint of DCT", u, self.dimension))

    def complement(self, y: Tensor) -> Tensor:
        """(I - D^T D) y: two transforms, the rows of D left out between them."""
        return through(self._left, self._left, require_features("DCT", y, self.size))

    def _product(self, y: Tensor) -> Tensor:
        found = self._turned(y).index_select(-1, self._parts.on(y.device))
        return found.mul_(self._gains.like(found)).to(y.dtype)

    def _transpose(self, u: Tensor) -> Tensor:
        values = in_single(u)
        padded = nn.functional.pad(values * self._inverse.like(values), (0, 1))
        parts = padded.index_select(-1, self._source.on(u.device))
        return self._returned(parts.mul_(self._signs.like(values))).to(u.dtype)

    def _left(self, y: Tensor) -> Tensor:
        parts = self._turned(y)
        return self._returned(parts.mul_(self._left_out.like(parts))).to(y.dtype)

    def _turned(self, y: Tensor) -> Tensor:
        """W as pairs (Re W_0, Im W_0, Re W_1, ...), (..., N) to (..., 2 (N//2 + 1))."""
        spectrum = torch.fft.rfft(in_single(y).index_select(-1, self._folded.on(y.device)))
        return torch.view_as_real(spectrum.mul_(self._turn.like(spectrum))).flatten(-2)

    def _returned(self, parts: Tensor) -> Tensor:
        """The y that these pairs belong to."""
        spectrum = torch.view_as_complex(parts.unflatten(-1, (-1, 2)))
        spectrum = spectrum.mul_(self._back.like(spectrum))
        return torch.fft.irfft(spectrum, self.size).index_select(-1, self._unfolded.on(parts.device))

    def dense(self) -> Tensor:
        """D as a (d, N) matrix in float64, from cosines."""
        k, j = torch.tensor(self.frequencies)[:, None], torch.arange(self.size)
        turns = k * (2 * j + 1) % (4 * self.size)
        gains = torch.where(k > 0, 2.0, 1.0).double().div(self.size).sqrt()
        return gains * torch.cos(turns.double() * (math.pi / (2 * self.size)))

    @property
    def coherence(self) -> float:
        """The largest |cosine| between two columns of D."""
        return largest_cosine(self.dense())

    def extra_repr(self) -> str:
        return f"{self.dimension}, {self.size}"
