"""mu is at most the least eigenvalue of A^T A, and close to it where the physics is diagonal."""

from __future__ import annotations

import deepinv
import pytest
import torch

import pnp
from tests.inventory.physics import PHYSICS, Case, dense, kernel


@pytest.mark.parametrize("case", PHYSICS.values(), ids=PHYSICS)
def test_is_below_the_least_eigenvalue_and_tight_where_one_is_claimed(case: Case) -> None:
    problem = case.pose()
    least = max(0.0, float(torch.linalg.eigvalsh(dense(problem.physics.A_adjoint_A, case.shape))[0]))
    mu = problem.strong_convexity
    assert mu.source == "proved"
    if not case.convexity:
        assert mu.value == 0
        return
    assert least * (1 - 1e-5) - 1e-12 <= mu.value <= least * (1 + 1e-12)
    assert mu.value > 0


def test_is_zero_for_a_blur_whose_symbol_vanishes() -> None:
    """Equal taps on a torus of even size: the highest frequency is lost, and so it is said, not 1e-17."""
    taps = torch.nn.functional.pad(torch.full((1, 1, 1, 2), 0.5), (1, 0, 1, 1))
    for physics in (deepinv.physics.BlurFFT(img_size=(1, 8, 8), filter=taps), deepinv.physics.Blur(taps, padding="circular")):
        assert pnp.pose(torch.rand(1, 1, 8, 8), physics, noise_level=0.03).strong_convexity.value == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(8, 8), (8, 7), (7, 8), (9, 9)])
def test_holds_for_odd_and_even_sizes_in_both_precisions(size: tuple[int, int], dtype: torch.dtype) -> None:
    """The half of the spectrum that is stored decides: zero and highest frequencies are their own conjugates."""
    for seed in range(5):
        filter = (kernel(3, 3, seed=seed) + torch.nn.functional.pad(torch.ones(1, 1, 1, 1), (1, 1, 1, 1))).to(dtype)
        physics = deepinv.physics.BlurFFT(img_size=(1, *size), filter=filter)
        least = float(torch.fft.fft2(filter.double(), s=size).abs().min()) ** 2
        assert 0.99 * least < pnp.certified_smoothness(physics).strong_convexity <= least
