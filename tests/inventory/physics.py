"""Every physics that the tests speak of, small enough for a dense matrix, in the precision that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import deepinv
import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from pnp import Problem, pose

NOISE_LEVEL = 0.03
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Case:
    """A physics and what is expected of it.

    Parameters
    ----------
    make : the physics with tensors of a dtype.
    shape : of one image, (channels, height, width).
    looseness : the bound of |A|^2 is at most (1 + looseness) |A|^2 when the problem is posed.
    convexity : the least eigenvalue of A^T A is bounded tightly (otherwise the bound is 0).
    smoothness : what the caller supplies, where no rule speaks of the physics.
    """

    make: Callable[[torch.dtype], LinearPhysics]
    shape: Shape
    looseness: float
    convexity: bool = False
    smoothness: float | None = None

    def image(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.rand(1, *self.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)

    def pose(self, dtype: torch.dtype = torch.float64) -> Problem:
        """The problem of a noisy measurement of a random image."""
        physics = self.make(dtype)
        clean = physics.A(self.image(dtype=dtype))
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        return pose(clean + NOISE_LEVEL * noise, physics, noise_level=NOISE_LEVEL, smoothness=self.smoothness)


def dense(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """The matrix of a linear function in float64, column by column from basis vectors."""
    basis = torch.eye(int(torch.tensor(shape).prod()), dtype=torch.float64)
    return torch.stack([function(e.reshape(1, *shape)).flatten() for e in basis], dim=1)


def kernel(rows: int, columns: int, *, signed: bool = False, seed: int = 0, channels: int = 1) -> Tensor:
    """Random, of sum 1 and nonnegative, or signed."""
    weights = torch.rand(1, channels, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return weights - 0.4 if signed else weights / weights.sum((-2, -1), keepdim=True)


def _blur(filter: Tensor, **settings: object) -> Callable[[torch.dtype], LinearPhysics]:
    return lambda dtype: deepinv.physics.Blur(filter.to(dtype), **settings)


def _blur_fft(shape: Shape, filter: Tensor) -> Callable[[torch.dtype], LinearPhysics]:
    return lambda dtype: deepinv.physics.BlurFFT(img_size=shape, filter=filter.to(dtype))


def _down(shape: Shape, filter: Tensor | None, factor: int, **settings: str) -> Callable[[torch.dtype], LinearPhysics]:
    def make(dtype: torch.dtype) -> LinearPhysics:
        chosen = None if filter is None else filter.to(dtype)
        return deepinv.physics.Downsampling(shape, filter=chosen, factor=factor, **settings)

    return make


def _tomography(**settings: object) -> Callable[[torch.dtype], LinearPhysics]:
    return lambda dtype: deepinv.physics.Tomography(angles=6, img_width=8, dtype=dtype, **settings)


class Gradient(LinearPhysics):
    """A user's own physics: differences between columns, |A|^2 < 4."""

    def A(self, x: Tensor, **_: object) -> Tensor:
        return x[..., 1:] - x[..., :-1]

    def A_adjoint(self, y: Tensor, **_: object) -> Tensor:
        return torch.nn.functional.pad(y, (1, 0)) - torch.nn.functional.pad(y, (0, 1))


GRAY, EVEN, COLOR = (1, 9, 8), (1, 8, 8), (3, 6, 6)
MASK = 0.2 + torch.rand(1, 1, 9, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1.7
HALF = (MASK > 1).double()
PHYSICS: dict[str, Case] = {
    "denoising": Case(lambda _: deepinv.physics.Denoising(), GRAY, 1e-12, convexity=True),
    "inpainting": Case(lambda d: deepinv.physics.Inpainting(img_size=GRAY, mask=HALF.to(d)), GRAY, 1e-12),
    "weighting": Case(lambda d: deepinv.physics.Inpainting(img_size=GRAY, mask=MASK.to(d)), GRAY, 1e-12, convexity=True),
    "demosaicing": Case(lambda d: deepinv.physics.Demosaicing(img_size=(6, 6)).to(d), COLOR, 1e-12),
    "mri": Case(lambda d: deepinv.physics.MRI(mask=HALF[0, 0].to(d)), (2, 9, 8), 1e-6),
    "mri_weighted": Case(lambda d: deepinv.physics.MRI(mask=MASK[0, 0].to(d)), (2, 9, 8), 1e-6, convexity=True),
    "blur_fft": Case(_blur_fft(GRAY, kernel(5, 3)), GRAY, 1e-6, convexity=True),
    "blur_fft_signed": Case(_blur_fft(GRAY, kernel(4, 3, signed=True)), GRAY, 1e-6, convexity=True),
    "blur_fft_odd": Case(_blur_fft((1, 8, 7), kernel(3, 4, seed=2)), (1, 8, 7), 1e-6, convexity=True),
    "blur_fft_color": Case(_blur_fft(COLOR, kernel(3, 3, channels=3)), COLOR, 1e-6, convexity=True),
    "blur_circular": Case(_blur(kernel(5, 3), padding="circular"), GRAY, 1e-10, convexity=True),
    "blur_circular_signed": Case(_blur(kernel(4, 5, signed=True), padding="circular"), GRAY, 1e-10, convexity=True),
    "blur_circular_wound": Case(_blur(kernel(11, 9, signed=True), padding="circular"), GRAY, 1e-10, convexity=True),
    "blur_circular_fft": Case(_blur(kernel(4, 5, signed=True), padding="circular", use_fft=True), GRAY, 1e-10, convexity=True),
    "blur_valid": Case(_blur(kernel(3, 3), padding="valid"), GRAY, 0.4),
    "blur_valid_fft": Case(_blur(kernel(3, 3), padding="valid", use_fft=True), GRAY, 0.4),
    "blur_valid_color": Case(_blur(kernel(3, 3, channels=3), padding="valid"), COLOR, 0.8),
    "blur_zero": Case(_blur(kernel(3, 3), padding="constant"), GRAY, 0.4),
    "blur_zero_fft": Case(_blur(kernel(4, 3), padding="constant", use_fft=True), GRAY, 0.4),
    "blur_signed": Case(_blur(kernel(5, 4, signed=True), padding="constant"), GRAY, 1.0),
    "blur_reflect": Case(_blur(kernel(5, 4), padding="reflect"), GRAY, 0.01),
    "blur_replicate": Case(_blur(kernel(4, 5), padding="replicate"), GRAY, 0.01),
    "downsampling": Case(_down(EVEN, kernel(3, 3), 2), EVEN, 1e-6),
    "downsampling_signed_circular": Case(_down((1, 12, 6), kernel(4, 5, signed=True), 3), (1, 12, 6), 1e-6),
    "downsampling_uneven": Case(_down((1, 8, 10), kernel(3, 3), 3), (1, 8, 10), 9.0),
    "downsampling_valid": Case(_down((1, 12, 12), kernel(3, 3), 2, padding="valid"), (1, 12, 12), 0.2),
    "downsampling_signed": Case(_down((1, 12, 12), kernel(5, 4, signed=True), 3, padding="constant"), (1, 12, 12), 0.6),
    "downsampling_reflect": Case(_down(EVEN, kernel(3, 3), 2, padding="reflect"), EVEN, 0.01),
    "decimation": Case(_down(EVEN, None, 2), EVEN, 1e-12),
    "tomography": Case(_tomography(normalize=False), EVEN, 0.01),
    "tomography_circle": Case(_tomography(normalize=False, circle=True), EVEN, 0.01),
    "own": Case(lambda _: Gradient(), EVEN, 0.1, smoothness=4.0),
}
