"""The certified smoothness of a physics is an upper bound of |A|^2, tight, and refused where nothing is proved."""

from __future__ import annotations

import deepinv
import pytest
import torch
from torch import Tensor

import pnp
from pnp.physics import kernel_norm_bound


def dense(physics: deepinv.physics.LinearPhysics, shape: tuple[int, ...]) -> Tensor:
    """The matrix of A in float64, column by column from basis vectors."""
    basis = torch.eye(int(torch.tensor(shape).prod()), dtype=torch.float64)
    return torch.stack([physics.A(e.reshape(1, *shape)).flatten() for e in basis], dim=1)


def random_kernel(height: int, width: int, *, signed: bool = False, seed: int = 0) -> Tensor:
    weights = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return weights - 0.4 if signed else weights / weights.sum()


SHAPE = (1, 9, 8)
MASK = torch.rand(1, 1, 9, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1.7
CASES = {
    "denoising": (lambda: deepinv.physics.Denoising(), SHAPE, 1e-12),
    "inpainting": (lambda: deepinv.physics.Inpainting(img_size=SHAPE, mask=MASK), SHAPE, 1e-12),
    "demosaicing": (lambda: deepinv.physics.Demosaicing(img_size=(6, 6)), (3, 6, 6), 1e-12),
    "mri": (lambda: deepinv.physics.MRI(mask=MASK[0, 0]), (2, 9, 8), 1e-6),
    "blur_fft": (lambda: deepinv.physics.BlurFFT(img_size=SHAPE, filter=random_kernel(5, 3)), SHAPE, 1e-6),
    "blur_fft_signed": (
        lambda: deepinv.physics.BlurFFT(img_size=SHAPE, filter=random_kernel(4, 3, signed=True)),
        SHAPE,
        1e-6,
    ),
    "blur_circular": (lambda: deepinv.physics.Blur(random_kernel(5, 3), padding="circular"), SHAPE, 1e-6),
    "blur_valid": (lambda: deepinv.physics.Blur(random_kernel(3, 3), padding="valid"), SHAPE, 0.4),
    "blur_zero": (lambda: deepinv.physics.Blur(random_kernel(3, 3), padding="constant"), SHAPE, 0.4),
    "blur_signed": (lambda: deepinv.physics.Blur(random_kernel(5, 4, signed=True), padding="constant"), SHAPE, 1.0),
    "blur_valid_fft": (lambda: deepinv.physics.Blur(random_kernel(3, 3), padding="valid", use_fft=True), SHAPE, 0.4),
    "downsampling": (
        lambda: deepinv.physics.Downsampling((1, 8, 8), filter=random_kernel(3, 3), factor=2),
        (1, 8, 8),
        5.0,
    ),
    "downsampling_valid": (
        lambda: deepinv.physics.Downsampling((1, 12, 12), filter=random_kernel(3, 3), factor=2, padding="valid"),
        (1, 12, 12),
        0.2,
    ),
    "downsampling_signed": (
        lambda: deepinv.physics.Downsampling(
            (1, 12, 12), filter=random_kernel(5, 4, signed=True), factor=3, padding="constant"
        ),
        (1, 12, 12),
        0.6,
    ),
    "decimation": (lambda: deepinv.physics.Downsampling((1, 8, 8), filter=None, factor=2), (1, 8, 8), 1e-12),
}


@pytest.mark.parametrize("name", CASES)
def test_bounds_the_dense_norm(name: str) -> None:
    make, shape, looseness = CASES[name]
    physics = make().double()
    exact = float(torch.linalg.matrix_norm(dense(physics, shape), 2)) ** 2
    bound = pnp.certified_smoothness(physics).bound
    assert exact <= bound * (1 + 1e-12)
    assert bound <= exact * (1 + looseness)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(7, 7), (24, 31), (64, 64)])
def test_kernel_bound_holds_at_every_size_of_torus(size: tuple[int, int], seed: int) -> None:
    kernel = random_kernel(5, 6, signed=True, seed=seed)
    largest = float(torch.fft.fft2(kernel, s=size).abs().max())
    bound = kernel_norm_bound(kernel)
    assert largest <= bound
    assert bound <= 1.01 * float(torch.fft.fft2(kernel, s=(512, 512)).abs().max())


def test_each_channel_is_filtered_by_itself() -> None:
    kernels = torch.cat([random_kernel(3, 3), 2 * random_kernel(3, 3)], dim=1)
    assert 4 <= pnp.certified_smoothness(deepinv.physics.Blur(kernels, padding="valid")).bound < 4.0001


def test_power_iteration_of_deepinv_is_below_the_bound(physics: deepinv.physics.BlurFFT, image: Tensor) -> None:
    assert float(physics.compute_sqnorm(image, verbose=False)) <= pnp.certified_smoothness(physics).bound


@pytest.mark.parametrize("padding", ["reflect", "replicate"])
def test_uncovered_padding_is_refused(padding: str, kernel: Tensor) -> None:
    with pytest.raises(pnp.Refused, match=rf"padding='{padding}'.*smoothness="):
        pnp.certified_smoothness(deepinv.physics.Blur(kernel, padding=padding))


def test_unknown_classes_and_subclasses_are_refused(image: Tensor) -> None:
    class Mine(deepinv.physics.Inpainting):
        pass

    unknown = [
        deepinv.physics.LinearPhysics(A=lambda x: 2 * x, A_adjoint=lambda y: 2 * y),
        deepinv.physics.DecomposablePhysics(),
        Mine(img_size=(1, 48, 48), mask=torch.ones(1, 48, 48)),
    ]
    for physics in unknown:
        with pytest.raises(pnp.Refused, match="unknown.*smoothness="):
            pnp.pose(image, physics, noise_level=0.03)


def test_a_replaced_method_is_refused(image: Tensor) -> None:
    physics = deepinv.physics.Denoising()
    physics.A = lambda x: 3 * x
    with pytest.raises(pnp.Refused, match="A was replaced"):
        pnp.pose(image, physics, noise_level=0.03)


def test_a_filter_without_finite_values_is_an_error() -> None:
    with pytest.raises(ValueError, match="NaN"):
        pnp.certified_smoothness(deepinv.physics.Blur(torch.full((1, 1, 3, 3), torch.nan), padding="valid"))
