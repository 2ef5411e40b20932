"""A number proved by Cholesky factorizations is above every singular value of the symbol on the grid, and hardly above."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stablenet.rounding import SINGLE_ROUNDOFF, UNIT_ROUNDOFF, cholesky_margin
from stablenet.spectral import gram
from stablenet.spectral.gram import largest_singular_value
from stablenet.spectral.symbols import sampled


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def orthogonal(n: int) -> Tensor:
    return torch.linalg.qr(random(n, n))[0]


def delta(matrix: Tensor) -> Tensor:
    """All frequencies alike."""
    return torch.nn.functional.pad(matrix[..., None, None], (1, 1, 1, 1))


def resonant(outputs: int, inputs: int, k: int) -> Tensor:
    """One sharp peak between grid points, in one direction."""
    wave = torch.cos(0.37 * torch.arange(k, dtype=torch.float64))
    return random(outputs, inputs)[..., None, None] * torch.outer(wave, wave) + 1e-3 * random(outputs, inputs, k, k)


KERNELS: dict[str, Callable[[], Tensor]] = {
    "random, one axis": lambda: random(7, 5, 4),
    "random, two axes": lambda: random(6, 9, 3, 3),
    "random, three axes": lambda: random(3, 4, 3, 2, 3),
    "oblong taps": lambda: random(5, 4, 1, 5),
    "single precision first": lambda: random(40, 48, 3, 3),
    "equal singular values": lambda: delta(orthogonal(36)),
    "equal at every frequency": lambda: delta(random(36, 36)),
    "identity and noise": lambda: delta(torch.eye(33, dtype=torch.float64)) + 1e-6 * random(33, 33, 3, 3),
    "rank one": lambda: random(40, 1, 3, 3) * random(1, 40, 1, 1, seed=1),
    "resonance between frequencies": lambda: resonant(34, 34, 5),
    "zero at the first frequencies": lambda: random(33, 33, 1) * torch.tensor([1.0, -1.0], dtype=torch.float64),
    "a large channel": lambda: random(34, 34, 3, 3) * torch.logspace(0, 12, 34, dtype=torch.float64)[:, None, None, None],
    "small channels": lambda: random(34, 34, 3, 3) * torch.logspace(0, -150, 34, dtype=torch.float64)[None, :, None, None],
    "one entry": lambda: torch.zeros(33, 33, 3, 3, dtype=torch.float64).index_fill_(0, torch.tensor(7), 1.0),
    "two equal blocks": lambda: (
        torch.block_diag(random(17, 17), random(17, 17))[..., None] * torch.ones(3, dtype=torch.float64)
    ),
}


def on_the_grid(kernel: Tensor, points: list[int]) -> float:
    return max(float(torch.linalg.matrix_norm(symbols, 2).max()) for symbols in sampled(kernel, points))


@pytest.mark.parametrize("name", KERNELS)
def test_above_every_singular_value_and_hardly_above(name):
    kernel = KERNELS[name]()
    points = [14 if k > 1 else 1 for k in kernel.shape[2:]]
    truth = on_the_grid(kernel, points)
    assert truth <= largest_singular_value(kernel, points) <= truth * (1 + 1e-6)


@pytest.mark.parametrize("name", KERNELS)
def test_single_precision_saves_time_and_costs_nothing(name, monkeypatch):
    kernel = KERNELS[name]()
    points = [14 if k > 1 else 1 for k in kernel.shape[2:]]
    quick = largest_singular_value(kernel, points)
    monkeypatch.setattr(gram, "SINGLE_FROM", math.inf)
    assert quick == pytest.approx(largest_singular_value(kernel, points), rel=1e-6)


def test_samples_are_the_whole_polynomial():
    for shape, points in (((4, 3, 3), [10]), ((3, 4, 2, 3), [8, 6]), ((5, 2, 2, 1, 3), [6, 1, 8])):
        kernel = random(*shape)
        samples = gram.SampledGram(kernel, points)
        found = torch.cat([gram.combined(samples.tables[-1], line) for line in samples.lines()])
        truth = torch.cat([symbols.mH @ symbols for symbols in sampled(kernel, points)])
        torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dtype", "unit"), [(torch.complex64, SINGLE_ROUNDOFF), (torch.complex128, UNIT_ROUNDOFF)])
@pytest.mark.parametrize("size", [2, 16, 120])
def test_a_completed_factorization_is_wrong_by_the_margin_at_most(size, dtype, unit):
    """s at and around the largest eigenvalue, where rounding decides: a proof must never be off by more than its margin."""
    proofs, refusals = 0, 0
    for seed in range(8):
        root = torch.complex(random(size, size, seed=seed), random(size, size, seed=seed + 100))
        matrix = (root @ root.mH).to(dtype)
        top = float(torch.linalg.eigvalsh(matrix.to(torch.complex128))[-1])
        for share in (-40, -4, -1, -0.5, -0.1, 0, 0.1, 1, 4):
            target = top * (1 + share * size * unit)
            if bool(gram.proved(-matrix[None].clone(), target)):
                proofs += 1
                assert top <= target * (1 + cholesky_margin(size, unit)) * (1 + 1e-14)
            else:
                refusals += 1
    assert proofs >= 8 and refusals >= 8


def test_few_frequencies_need_double_precision(monkeypatch):
    counts = {torch.complex64: 0, torch.complex128: 0}
    proved = gram.proved

    def counting(negated: Tensor, target: float) -> Tensor:
        counts[negated.dtype] += len(negated)
        return proved(negated, target)

    monkeypatch.setattr(gram, "proved", counting)
    largest_singular_value(random(64, 64, 3, 3), [46, 46])
    assert counts[torch.complex64] == 24 * 46
    assert counts[torch.complex128] <= 0.3 * counts[torch.complex64]


def test_nan_proves_nothing():
    matrix = torch.eye(3, dtype=torch.complex128)[None] * math.nan
    assert not gram.proved(matrix, 1.0).any()
