"""Rows of a Hadamard matrix with random signs as a frame: products as two small ones, H_(ab) = H_a (x) H_b [LyuTsang2021].

Source: the rows of H / sqrt(N) are orthonormal and signs of columns keep them so (docs/theorems.md, O1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stablenet.linear.frames.columns import require_sizes
from stablenet.linear.products import Table, require_features, through

DRAWS = 64
"""Sets of rows of which the least coherent is taken."""
ALONE = 32
"""Up to this size one product with H is faster than two with its factors."""


class Hadamard(nn.Module):
    """D = S H diag(signs) / sqrt(N): d rows of Sylvester's N x N matrix of signs, the least coherent of 64 draws.

    Parameters
    ----------
    dimension, size : d <= N, N a power of two.
    generator : of the rows and signs; seed 0 when None, the same frame every time.

    Shapes: forward (..., N) to (..., d), adjoint (..., d) to (..., N).

    Raises
    ------
    ValueError : d > N, or N not a power of two.
    """

    axis: int = -1

    def __init__(self, dimension: int, size: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        require_sizes("Hadamard", dimension, size)
        if size & (size - 1):
            raise ValueError(
                f"Hadamard needs a power of two as size, got {size}: {1 << (size.bit_length() - 1)} or {1 << size.bit_length()}"
            )
        generator = generator or torch.Generator().manual_seed(0)
        self.dimension, self.size = dimension, size
        shift = 0 if size <= ALONE else (size.bit_length() - 1) // 2
        self._first, self._second = Table(_sylvester(1 << shift)), Table(_sylvester(size >> shift))
        draws = torch.stack([torch.randperm(size, generator=generator)[:dimension] for _ in range(DRAWS)])
        rows = draws[_coherences(draws, size).argmin()].sort().values
        self._rows, left_out = Table(rows), torch.full((size,), 1 / size, dtype=torch.float64)
        left_out[rows] = 0
        self._left_out = Table(left_out)
        self._signs = Table(2 * torch.randint(2, (size,), generator=generator) - 1)

    def forward(self, y: Tensor) -> Tensor:
        return through(self._product, self._transpose, require_features("Hadamard", y, self.size))

    def adjoint(self, u: Tensor) -> Tensor:
        return through(self._transpose, self._product, require_features("the adjoint of Hadamard", u, self.dimension))

    def complement(self, y: Tensor) -> Tensor:
        """(I - D^T D) y: two transforms, the rows of D left out between them."""
        return through(self._left, self._left, require_features("Hadamard", y, self.size))

    def _product(self, y: Tensor) -> Tensor:
        found = self._transform(y * self._signs.like(y)).index_select(-1, self._rows.on(y.device))
        return found.mul_(1 / math.sqrt(self.size))

    def _transpose(self, u: Tensor) -> Tensor:
        rows = self._rows.on(u.device)
        wide = u.new_zeros(*u.shape[:-1], self.size).index_copy(-1, rows, u * (1 / math.sqrt(self.size)))
        return self._transform(wide).mul_(self._signs.like(u))

    def _left(self, y: Tensor) -> Tensor:
        signs = self._signs.like(y)
        return self._transform(self._transform(y * signs).mul_(self._left_out.like(y))).mul_(signs)

    def _transform(self, y: Tensor) -> Tensor:
        """H y along the last axis: H_a Y H_b for y = (Y_11, Y_12, ...), both symmetric."""
        first, second = self._first.like(y), self._second.like(y)
        if len(first) == 1:
            return y @ second
        cells = (y.reshape(-1, len(second)) @ second).unflatten(0, (-1, len(first)))
        return torch.bmm(first.expand(len(cells), -1, -1), cells).reshape(y.shape)

    def dense(self) -> Tensor:
        """D as a (d, N) matrix in float64."""
        return _sylvester(self.size)[self._rows.exact] * self._signs.exact / math.sqrt(self.size)

    @property
    def coherence(self) -> float:
        """The largest |cosine| between two columns of D, from the transform of the rows' indicator."""
        return float(_coherences(self._rows.exact[None], self.size))

    def extra_repr(self) -> str:
        return f"{self.dimension}, {self.size}"


def _sylvester(size: int) -> Tensor:
    """H_1 = 1, H_2n = [[H_n, H_n], [H_n, -H_n]], in float64."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1, 1], [1, -1]], dtype=torch.float64), matrix)
    return matrix


def _coherences(draws: Tensor, size: int) -> Tensor:
    """(draws,): max over x != 0 of |sum_r (-1)^(r.x)|/d, as <column j, column k> depends on j xor k alone."""
    sums = torch.zeros(len(draws), size, dtype=torch.float64).scatter_(1, draws, 1.0)
    half = 1
    while half < size:
        pairs = sums.view(len(draws), -1, 2, half)
        sums = torch.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], 2).reshape(len(draws), size)
        half *= 2
    return sums[:, 1:].abs().amax(1) / draws.shape[1] if size > 1 else sums[:, 0] * 0
