"""The kernel of a block with a wide frame is the arc-cosine kernel, times a factor of the depth (docs/theorems.md, K7)."""

from __future__ import annotations

import math

import pytest
import torch

from stablenet import kernels, proximal
from stablenet.blocks import NOK
from stablenet.linear import frames


def points(count: int = 6, dimension: int = 3, seed: int = 0) -> torch.Tensor:
    x = torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cat([x, -2 * x[:1], 3 * x[:1], torch.zeros(1, dimension, dtype=torch.float64)])


def test_arc_cosine_is_the_expectation() -> None:
    x, z = points(), points(seed=1)
    w = torch.randn(2_000_000, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    features = [torch.relu(p @ w.T) for p in (x, z)]
    sampled = features[0] @ features[1].T / len(w)
    scale = x.norm(dim=1)[:, None] * z.norm(dim=1)
    exact = kernels.arc_cosine(x, z)
    assert bool(((sampled - exact).abs() <= 4e-3 * scale).all())
    assert bool((exact >= 0).all() and (exact <= scale / 2 + 1e-12).all())


def test_arc_cosine_at_the_ends_of_the_angle() -> None:
    x = points()
    k = kernels.arc_cosine(x, x)
    torch.testing.assert_close(k.diagonal(), x.square().sum(1) / 2, rtol=1e-12, atol=0)
    assert abs(float(k[0, 6])) < 1e-12 and float(k[0, 7]) == pytest.approx(1.5 * float(x[0].square().sum()), rel=1e-12)
    assert bool((k[-1] == 0).all()) and float(torch.linalg.eigvalsh(k).min()) > -1e-12
    right = kernels.arc_cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
    assert float(right) == pytest.approx(3 / (2 * math.pi), rel=1e-6)
    tiny = kernels.arc_cosine(1e-15 * x.float(), x.float())
    torch.testing.assert_close(1e15 * tiny, k.float(), rtol=1e-4, atol=1e-5)


def test_arc_cosine_has_its_derivative_at_equal_and_opposite_points() -> None:
    """d/dz at z = x is x/2 (of |x||z| (sin t + (pi - t) cos t)/(2 pi), where t bends like |z - x|), at z = -x it is 0."""
    x = points(4)[:4]
    for sign, expected in ((1, 0.5), (-1, 0.0)):
        z = (sign * x).requires_grad_()
        kernels.arc_cosine(x, z).diagonal().sum().backward()
        torch.testing.assert_close(z.grad, expected * x, rtol=1e-6, atol=1e-6)
    z = points(4, seed=3)[:4].requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: kernels.arc_cosine(a, b), (x.clone().requires_grad_(), z))


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_a_wide_frame_gives_it_at_every_depth(steps: int) -> None:
    x = points()
    block = NOK(frames.Haar(3, 40_000), proximal.Nonnegative(), steps=steps)
    exact = kernels.neural_optimization(x, x, steps=steps)
    scale = x.norm(dim=1)[:, None] * x.norm(dim=1)
    assert bool(((block.kernel(x, x) - exact).abs() <= 0.05 * scale).all())
    assert float((exact / kernels.arc_cosine(x, x))[0, 1]) == pytest.approx((2 - 2.0 ** (1 - steps)) ** 2)
    if steps > 1:  # the factor is seen: one step less is off
        other = kernels.neural_optimization(x, x, steps=steps - 1)
        assert not bool(((block.kernel(x, x) - other).abs() <= 0.025 * scale).all())


def test_a_kernel_is_positive_and_no_smaller_frame_is_asked_for() -> None:
    x = points(20, 4, seed=5)
    for frame in (frames.DFT(4, 16), frames.Hadamard(4, 16), frames.Haar(4, 9)):
        k = NOK(frame, proximal.SoftThreshold(0.1), steps=4).kernel(x, x)
        assert k.shape == (23, 23) and float(torch.linalg.eigvalsh(k).min()) > -1e-10 * float(k.diagonal().max())


@pytest.mark.parametrize(
    ("x", "z"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4)),
        (torch.zeros(3), torch.zeros(2, 3)),
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.float64)),
        (torch.zeros(2, 3, dtype=torch.complex64), torch.zeros(2, 3, dtype=torch.complex64)),
    ],
)
def test_what_are_no_points_is_refused(x: torch.Tensor, z: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="real matrices"):
        kernels.arc_cosine(x, z)
    with pytest.raises(ValueError, match="real matrices"):
        kernels.neural_optimization(x, z, steps=1)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        kernels.neural_optimization(x, z, steps=0)
