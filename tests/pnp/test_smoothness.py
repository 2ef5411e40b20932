"""The certified smoothness of a physics is an upper bound of |A|^2, tight, and refused where nothing is proved."""

from __future__ import annotations

import deepinv
import pytest
import torch
from torch import Tensor

import pnp
from pnp.physics import kernel_norm_bound
from tests.inventory.physics import PHYSICS, Case, dense, kernel


@pytest.mark.parametrize("case", PHYSICS.values(), ids=PHYSICS)
def test_bounds_the_dense_norm(case: Case) -> None:
    problem = case.pose()
    exact = float(torch.linalg.matrix_norm(dense(problem.physics.A, case.shape), 2)) ** 2
    assert exact <= problem.smoothness.value * (1 + 1e-12)
    assert problem.smoothness.value <= exact * (1 + case.looseness)


@pytest.mark.parametrize("name", [name for name, case in PHYSICS.items() if case.smoothness is None])
def test_holds_at_every_size_where_none_is_told(name: str) -> None:
    physics = PHYSICS[name].make(torch.float64)
    exact = float(torch.linalg.matrix_norm(dense(physics.A, PHYSICS[name].shape), 2)) ** 2
    try:
        known = pnp.certified_smoothness(physics)
    except pnp.Refused as refusal:
        assert "reflect" in str(refusal) or "replicate" in str(refusal)
        return
    assert exact <= known.bound * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(7, 7), (24, 31), (64, 64)])
def test_kernel_bound_holds_at_every_size_of_torus(size: tuple[int, int], seed: int) -> None:
    signed = kernel(5, 6, signed=True, seed=seed)
    largest = float(torch.fft.fft2(signed, s=size).abs().max())
    bound = kernel_norm_bound(signed)
    assert largest <= bound
    assert bound <= 1.01 * float(torch.fft.fft2(signed, s=(512, 512)).abs().max())


def test_a_filter_larger_than_the_image_is_bounded_or_refused() -> None:
    """By Fourier transforms deepinv crops it: the part may have a larger norm than the whole filter (here 4.28 for 2.48)."""
    taps = torch.tensor([0.37, 0.7, 1.0, -0.7, 0.2], dtype=torch.float64)
    whole = torch.outer(taps, taps)[None, None]
    physics = deepinv.physics.Blur(whole, padding="circular", use_fft=True)
    part = float(torch.linalg.matrix_norm(dense(physics.A, (1, 3, 3)), 2))
    assert part > 1.7 * kernel_norm_bound(whole)
    for n in range(2, 6):
        assert float(torch.linalg.matrix_norm(dense(physics.A, (1, n, n)), 2)) ** 2 <= pnp.certified_smoothness(physics).bound
    y = torch.rand(1, 1, 3, 3, dtype=torch.float64)
    with pytest.raises(pnp.Refused, match=r"filter of \(5, 5\) on images of \(3, 3\).*cropped"):
        pnp.pose(y, physics, noise_level=0.03)
    with pytest.raises(pnp.Refused, match="cropped"):
        pnp.pose(y, deepinv.physics.BlurFFT(img_size=(1, 3, 3), filter=whole), noise_level=0.03)


def test_each_channel_is_filtered_by_itself() -> None:
    kernels = torch.cat([kernel(3, 3), 2 * kernel(3, 3)], dim=1)
    assert 4 <= pnp.certified_smoothness(deepinv.physics.Blur(kernels, padding="valid")).bound < 4.0001


def test_a_filter_of_each_image_is_bounded_by_the_largest(image: Tensor) -> None:
    kernels = torch.cat([kernel(3, 3), 2 * kernel(3, 3)]).float()
    y = torch.cat([image, image])
    for physics in (
        deepinv.physics.Blur(kernels, padding="circular"),
        deepinv.physics.BlurFFT(img_size=(1, 48, 48), filter=kernels),
    ):
        assert 4 <= pnp.pose(y, physics, noise_level=0.03).smoothness.value < 4.0001
        with pytest.raises(ValueError, match="does not fit"):
            pnp.pose(torch.cat([y, y, y]), physics, noise_level=0.03)


def test_power_iteration_of_deepinv_is_below_the_bound(physics: deepinv.physics.BlurFFT, image: Tensor) -> None:
    assert float(physics.compute_sqnorm(image, verbose=False)) <= pnp.certified_smoothness(physics).bound


@pytest.mark.parametrize("padding", ["reflect", "replicate"])
def test_uncovered_padding_is_refused(padding: str, kernel: Tensor) -> None:
    with pytest.raises(pnp.Refused, match=rf"padding='{padding}'.*smoothness="):
        pnp.certified_smoothness(deepinv.physics.Blur(kernel, padding=padding))
    signed = deepinv.physics.Blur(kernel - 0.03, padding=padding)
    with pytest.raises(pnp.Refused, match=rf"padding='{padding}'.*smoothness="):
        pnp.pose(torch.rand(1, 1, 16, 16), signed, noise_level=0.03)


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


def test_a_rule_of_the_user_is_asked(image: Tensor) -> None:
    class Doubled(deepinv.physics.LinearPhysics):
        def A(self, x: Tensor, **_: object) -> Tensor:
            return 2 * x

        def A_adjoint(self, y: Tensor, **_: object) -> Tensor:
            return 2 * y

    with pytest.raises(pnp.Refused, match="unknown"):
        pnp.pose(image, Doubled(), noise_level=0.03)

    @pnp.physics.rule(Doubled)
    def _doubled(_: Doubled) -> pnp.Smoothness:
        return pnp.Smoothness(4.0, "twice the image", strong_convexity=4.0, convexity_reason="twice the image")

    problem = pnp.pose(image, Doubled(), noise_level=0.03)
    assert (problem.smoothness, problem.strong_convexity) == (pnp.Bound(4.0, "twice the image"),) * 2


@pytest.mark.parametrize(("upper", "lower", "message"), [(3.8, 0.0, "not an upper bound"), (4.0, 4.2, "not a lower bound")])
def test_a_rule_that_is_wrong_is_refused_with_both_numbers(image: Tensor, upper: float, lower: float, message: str) -> None:
    class Wrong(deepinv.physics.LinearPhysics):
        def A(self, x: Tensor, **_: object) -> Tensor:
            return 2 * x

        def A_adjoint(self, y: Tensor, **_: object) -> Tensor:
            return 2 * y

    @pnp.physics.rule(Wrong)
    def _wrong(_: Wrong) -> pnp.Smoothness:
        return pnp.Smoothness(upper, "so I thought", strong_convexity=lower)

    with pytest.raises(pnp.Refused, match=rf"{lower or upper}.*{message}.*= 4\b"):
        pnp.pose(image, Wrong(), noise_level=0.03)


def test_a_filter_without_finite_values_is_an_error() -> None:
    with pytest.raises(ValueError, match="NaN"):
        pnp.certified_smoothness(deepinv.physics.Blur(torch.full((1, 1, 3, 3), torch.nan), padding="valid"))
