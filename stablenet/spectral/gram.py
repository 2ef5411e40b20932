"""The largest singular value of a symbol over a grid of frequencies, from above: one Cholesky factorization a frequency.

Source: t I - G is positive semidefinite where its Cholesky factorization runs to its end, up to the backward error of
[Higham2002], Theorem 10.3; the interpolation of G and the choice of t are docs/theorems.md, N2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from stablenet.rounding import SINGLE_ROUNDOFF, UNIT_ROUNDOFF, cholesky_margin, interpolation_margin, row_margin
from stablenet.spectral import symbols

SLACK, LARGEST_SLACK = 1e-7, 1e-3
"""By how much, relatively, t exceeds the largest eigenvalue found: at first, and at most where t had to be raised often."""
CHUNK_BYTES = 32 * 2**20
SINGLE_FROM = 32
"""The size from which single precision pays; it is used as long as its margin is below LARGEST_SINGLE_MARGIN."""
LARGEST_SINGLE_MARGIN = 0.02


def largest_singular_value(kernel: Tensor, points: Sequence[int]) -> float:
    """A certified upper bound of the singular values of W(theta) on the grid of `points` an axis, as a rule tight to 1e-7.

    kernel (out, in, *taps) in float64. A number t is *proved* to be above every eigenvalue of G(theta) = W^* W(theta):
    the Cholesky factorization of t I - G(theta) runs to its end at each frequency. Where it does not, t is raised; what
    was proved for a smaller t stays proved.
    """
    kernel = kernel if kernel.shape[1] <= kernel.shape[0] else kernel.transpose(0, 1)
    if kernel.shape[1] == 1:
        largest = max(float(chunk.abs().square().sum(1).max()) for chunk in symbols.sampled(kernel, points))
        return math.sqrt(largest) * (1 + row_margin(kernel.shape[0]))
    gram = SampledGram(kernel, points)
    single = kernel.shape[1] >= SINGLE_FROM and cholesky_margin(kernel.shape[1], SINGLE_ROUNDOFF) < LARGEST_SINGLE_MARGIN
    t = gram.largest_trace / kernel.shape[1]
    for line in gram.lines():
        for table in gram.tables[-1].split(max(1, CHUNK_BYTES // (16 * kernel.shape[1] ** 2))):
            t = _raised(t, gram, line, table, single=single)
    return math.sqrt(t) * (1 + 4 * UNIT_ROUNDOFF)


def _raised(t: float, gram: SampledGram, line: Tensor, table: Tensor, *, single: bool) -> float:
    """The smallest t found, not below the one given, that is proved for the frequencies of one table."""
    dtype = torch.complex64 if single else torch.complex128
    negated = combined(-table, line, dtype)
    gains = _gains(negated)
    left, slack = torch.arange(len(table)), SLACK
    if float(gains.max()) * (1 + SLACK) > t:
        t = max(t, _largest_eigenvalue(combined(table[gains.argmax(), None], line)[0]) * (1 + SLACK))
    left = left[~proved(negated, gram.target(t, dtype))]
    while len(left):
        remaining = combined(-table[left], line)
        left = left[~proved(remaining, gram.target(t, torch.complex128))]
        if len(left):
            worst = left[gains[left].argmax()]
            t = max(t, _largest_eigenvalue(combined(table[worst, None], line)[0])) * (1 + slack)
            slack = min(4 * slack, LARGEST_SLACK)
    return t


def combined(table: Tensor, line: Tensor, dtype: torch.dtype = torch.complex128) -> Tensor:
    """(frequencies, n, n) from real pairs (samples, n, n, 2) of one line."""
    real = torch.empty((), dtype=dtype).real.dtype
    return torch.view_as_complex((table.to(real) @ line.flatten(1).to(real)).unflatten(1, line.shape[1:]))


def proved(negated: Tensor, target: float) -> Tensor:
    """Whether target I - G has a Cholesky factor, at each frequency; the diagonals of -G are overwritten."""
    negated.diagonal(dim1=1, dim2=2).add_(target)
    factors, failed = torch.linalg.cholesky_ex(negated)
    return (failed == 0) & factors.diagonal(dim1=1, dim2=2).real.isfinite().all(1)


def _gains(matrices: Tensor, steps: int = 4) -> Tensor:
    """Estimates of the largest eigenvalues, from below, by a few steps of the power iteration."""
    vectors = torch.linspace(1, 2, matrices.shape[1]).to(matrices.dtype).expand(len(matrices), -1)[..., None]
    for _ in range(steps):
        vectors = matrices @ vectors
        gains = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        vectors = vectors / gains.clamp_min(1e-30)
    return gains[:, 0, 0]


def _largest_eigenvalue(matrix: Tensor) -> float:
    return float(torch.linalg.eigvalsh(matrix)[-1])


class SampledGram:
    """G(theta) = W^* W(theta), a trigonometric polynomial of degree k - 1 an axis: 2 k - 1 samples an axis are all of it.

    G(theta) = sum_c D(theta - theta_c) G(theta_c), D(x) = (1 + 2 sum_(l<k) cos(l x))/(2 k - 1), one axis after the other.
    """

    def __init__(self, kernel: Tensor, points: Sequence[int]) -> None:
        taps = kernel.shape[2:]
        coarse = [2 * k - 1 for k in taps]
        half = torch.cat([symbol.mH @ symbol for symbol in symbols.sampled(kernel, coarse)])
        half = half.unflatten(0, (-1, *coarse[1:]))
        # G(-theta) is the conjugate of G(theta): the missing half of the first axis, in the order of its frequencies
        mirrored = half[1:].conj().flip(0)
        for axis in range(1, len(coarse)):
            mirrored = mirrored.flip(axis).roll(1, axis)
        self.samples = torch.view_as_real(torch.cat([half, mirrored]).resolve_conj())
        halves = [n // 2 + 1 if axis == 0 else n for axis, n in enumerate(points)]
        self.tables = [_dirichlet(m, n, k) for m, n, k in zip(halves, points, taps, strict=True)]
        traces = torch.cat([half, mirrored]).diagonal(dim1=-2, dim2=-1).real.sum(-1)
        self.gain = math.prod(float(table.abs().sum(1).max()) for table in self.tables)
        self.shape, self.largest_trace = tuple(kernel.shape), float(traces.max())

    def lines(self) -> Iterator[Tensor]:
        """The samples of the last axis, at every frequency of the axes before it; half of the grid, the rest is conjugate."""
        yield from _interpolated(self.samples, self.tables[:-1])

    def target(self, t: float, dtype: torch.dtype) -> float:
        """The number s so that a completed factorization of s I - G, computed in this type, proves G <= t I."""
        unit = SINGLE_ROUNDOFF if dtype == torch.complex64 else UNIT_ROUNDOFF
        return (t - interpolation_margin(self.shape, unit) * self.gain * self.largest_trace) / (
            1 + cholesky_margin(self.shape[1], unit)
        )


def _dirichlet(rows: int, points: int, taps: int) -> Tensor:
    """(rows, 2 taps - 1): the first `rows` of `points` equispaced angles, interpolated from 2 taps - 1 equispaced ones."""
    samples = 2 * taps - 1
    angle = torch.arange(rows, dtype=torch.float64)[:, None] * (2 * math.pi / points)
    angle = angle - torch.arange(samples, dtype=torch.float64) * (2 * math.pi / samples)
    degrees = torch.arange(1, taps, dtype=torch.float64)
    return (1 + 2 * torch.cos(angle[..., None] * degrees).sum(-1)) / samples


def _interpolated(samples: Tensor, tables: Sequence[Tensor]) -> Iterator[Tensor]:
    if not tables:
        yield samples
        return
    for row in tables[0]:
        yield from _interpolated(torch.tensordot(row, samples, 1), tables[1:])
