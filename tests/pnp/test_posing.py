"""What is wrong with a measurement, a noise level or a noise model is said once, at the entrance, with its remedy."""

from __future__ import annotations

import math
from collections.abc import Callable

import deepinv
import pytest
import torch
from deepinv.physics import GaussianNoise, LinearPhysics, NoiseModel, PoissonNoise, ZeroNoise
from torch import Tensor

import pnp
from tests.inventory.physics import PHYSICS, Case

KERNEL = torch.full((1, 1, 3, 3), 1 / 9)
Y = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def blur(**settings: object) -> LinearPhysics:
    return deepinv.physics.BlurFFT(img_size=(1, 12, 12), filter=KERNEL, **settings)


@pytest.mark.parametrize("case", PHYSICS.values(), ids=PHYSICS)
def test_the_start_is_the_measurement_or_the_scaled_backprojection(case: Case) -> None:
    """A^T y without 1/L is 1854 times too large for a tomography, and an iteration has to come down from there."""
    problem = case.pose(torch.float32)
    start, image = problem.start, case.image(dtype=torch.float32)
    assert start.shape == image.shape
    assert float(start.abs().max()) < 4
    if problem.measurement.shape != image.shape:
        torch.testing.assert_close(start * problem.smoothness.value, problem.backprojection, atol=0, rtol=1e-5)


@pytest.mark.parametrize(
    ("noise_level", "message"),
    [
        (15, r"noise_level=15 .*divide by 255.*0\.05882"),
        (1.5, "noise_level=1.5 .*divide"),
        (0, "positive.*got 0"),
        (-0.1, "positive.*got -0.1"),
        (math.nan, "positive.*got nan"),
        (math.inf, "positive.*got inf"),
    ],
)
def test_noise_levels_out_of_range_are_errors(noise_level: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pnp.pose(Y, blur(), noise_level=noise_level)
    with pytest.raises(ValueError, match=message):
        pnp.solve(pnp.PGD(), Y, blur(), torch.nn.Identity(), noise_level=noise_level)


@pytest.mark.parametrize("noise_level", ["0.03", None, True, torch.full((2,), 0.03)])
def test_noise_levels_that_are_no_numbers_are_errors(noise_level: object) -> None:
    with pytest.raises(TypeError, match="one number"):
        pnp.pose(Y, blur(), noise_level=noise_level)


@pytest.mark.parametrize("noise", [PoissonNoise(0.1), deepinv.physics.PoissonGaussianNoise(), deepinv.physics.UniformNoise()])
def test_noise_that_is_not_gaussian_is_refused(noise: NoiseModel) -> None:
    with pytest.raises(pnp.Refused, match=f"{type(noise).__name__} is not covered.*Gaussian.*ZeroNoise"):
        pnp.pose(Y, blur(noise_model=noise), noise_level=0.03)


@pytest.mark.parametrize("sigma", [0.1, 0.029, 0.0305, torch.tensor([0.03, 0.05])])
def test_gaussian_noise_of_another_deviation_is_an_error_with_both_numbers(sigma: float | Tensor) -> None:
    with pytest.raises(ValueError, match=r"noise_level=0.03, but BlurFFT says GaussianNoise\(sigma=0\.\d+.*pass noise_level="):
        pnp.pose(Y, blur(noise_model=GaussianNoise(sigma)), noise_level=0.03)


@pytest.mark.parametrize(
    "noise", [None, ZeroNoise(), GaussianNoise(0.03), GaussianNoise(0.0), GaussianNoise(torch.full((2,), 0.03)), torch.sin]
)
def test_noise_that_agrees_or_says_nothing_passes(noise: NoiseModel | Callable[[Tensor], Tensor] | None) -> None:
    assert pnp.pose(Y, blur(noise_model=noise), noise_level=0.03).noise_level == 0.03
    assert pnp.pose(Y, deepinv.physics.Denoising(), noise_level=0.03).noise_level == 0.03


def test_the_users_own_noise_models_are_taken_for_what_they_inherit() -> None:
    class Mine(NoiseModel):
        pass

    class Photons(PoissonNoise):
        pass

    class Bell(GaussianNoise):
        pass

    pnp.pose(Y, blur(noise_model=Mine()), noise_level=0.03)
    pnp.pose(Y, blur(noise_model=Bell(0.03)), noise_level=0.03)
    pnp.pose(Y, blur(noise_model=deepinv.physics.UniformGaussianNoise(0.01, 0.05)), noise_level=0.03)
    with pytest.raises(pnp.Refused, match="Photons"):
        pnp.pose(Y, blur(noise_model=Photons()), noise_level=0.03)
    for noise in (Bell(0.05), deepinv.physics.UniformGaussianNoise(0.05, 0.1)):
        with pytest.raises(ValueError, match="noise_level=0.03, but BlurFFT says"):
            pnp.pose(Y, blur(noise_model=noise), noise_level=0.03)


def test_noise_is_measured_in_the_units_of_the_measurement() -> None:
    """The sums of a tomography reach further than the image, and so may their noise."""
    physics = deepinv.physics.Tomography(angles=8, img_width=12, normalize=False)
    y = physics.A(Y)
    limit = float(pnp.pose(y, physics, noise_level=2.0).smoothness.value) ** 0.5
    assert 5 < limit < 15
    with pytest.raises(ValueError, match="noise_level=15 is too large"):
        pnp.pose(y, physics, noise_level=15)


@pytest.mark.parametrize(
    ("smoothness", "error"),
    [("1", None), (torch.tensor(1.5), None), (math.inf, ValueError), (-1, ValueError), ("one", TypeError), ([1], TypeError)],
)
def test_a_supplied_smoothness_is_one_positive_number(smoothness: object, error: type[Exception] | None) -> None:
    if error is None:
        assert pnp.pose(Y, blur(), noise_level=0.03, smoothness=smoothness).smoothness.source == "supplied"
        return
    with pytest.raises(error, match="smoothness must be"):
        pnp.pose(Y, blur(), noise_level=0.03, smoothness=smoothness)


def test_a_sensor_that_is_not_linear_is_refused() -> None:
    with pytest.raises(pnp.Refused, match="sensor_model"):
        pnp.pose(Y, blur(sensor_model=lambda y: y.clamp(0, 1)), noise_level=0.03)


@pytest.mark.parametrize(
    ("convert", "remedy"),
    [(Tensor.bool, r"mask\.float\(\)"), (Tensor.int, r"mask\.float\(\)"), (lambda mask: 1j * mask, "modulus")],
)
def test_masks_that_are_not_real_floating_point_are_errors(convert: Callable[[Tensor], Tensor], remedy: str) -> None:
    mask = convert((Y[:1] > 0.5).float())
    with pytest.raises(ValueError, match=f"mask of Inpainting is {mask.dtype}.*{remedy}"):
        pnp.pose(Y, deepinv.physics.Inpainting(img_size=(1, 12, 12), mask=mask), noise_level=0.03)


def test_a_missing_mask_or_filter_is_an_error() -> None:
    for physics, name in (
        (deepinv.physics.Inpainting(img_size=(1, 12, 12)), "Inpainting has no mask"),
        (deepinv.physics.BlurFFT(img_size=(1, 12, 12)), "BlurFFT has no filter"),
        (deepinv.physics.Blur(), "Blur has no filter"),
    ):
        with pytest.raises(ValueError, match=name):
            pnp.pose(Y, physics, noise_level=0.03)


@pytest.mark.parametrize("make", [blur, lambda: deepinv.physics.Blur(KERNEL, padding="circular")])
def test_two_precisions_are_one_error(make: Callable[[], LinearPhysics]) -> None:
    with pytest.raises(ValueError, match=r"float64, the (mask|filter|angle) of Blur\w* torch.float32.*y.to\(torch.float32\)"):
        pnp.pose(Y.double(), make(), noise_level=0.03)
    assert pnp.pose(Y.double(), make().double(), noise_level=0.03).backprojection.dtype == torch.float64


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.complex(Y, Y), r"real, got torch.complex64.*two channels"),
        (Y.to("meta"), "meta device"),
        (Y[..., :7], r"shape \(2, 1, 12, 7\) does not fit"),
        (Y[0, 0], r"shape \(12, 12\) does not fit"),
        (Y[:0], "empty"),
        (Y * torch.nan, "288 NaN or infinite values of 288"),
        (Y.half(), "float32 or float64, got torch.float16"),
        (255 * Y, "divide 8-bit images by 255"),
    ],
)
def test_measurements_that_fit_no_physics_are_errors(y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pnp.pose(y, blur(), noise_level=0.03)


def test_a_filter_that_removes_the_mean_may_measure_more_than_a_white_image_gives() -> None:
    edges = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])[None, None]
    physics = deepinv.physics.Blur(edges, padding="circular")
    y = physics.A((Y > 0.5).float())
    assert float(y.abs().max()) > 2
    pnp.pose(y, physics, noise_level=0.03)
    with pytest.raises(ValueError, match="divide 8-bit images by 255"):
        pnp.pose(255 * y, physics, noise_level=0.03)


def test_a_copy_of_a_physics_is_as_good() -> None:
    for physics in (blur(), deepinv.physics.Blur(KERNEL, padding="circular"), deepinv.physics.Denoising()):
        assert pnp.pose(Y, physics.clone(), noise_level=0.03).smoothness.value == pytest.approx(1, abs=1e-5)
    with torch.inference_mode():
        problem = pnp.pose(Y, blur(), noise_level=0.03)
        problem.require_unchanged()


def test_a_physics_on_another_device_is_an_error() -> None:
    physics = blur()
    physics.mask = physics.mask.to("meta")
    with pytest.raises(ValueError, match="the measurement is on cpu, the mask of BlurFFT on meta"):
        pnp.pose(Y, physics, noise_level=0.03)


def test_the_problem_says_what_was_tested() -> None:
    told = pnp.pose(Y, blur(), noise_level=0.03).tested
    assert told[0] == "linearity and adjointness of BlurFFT were tested at random vectors"
    own = pnp.pose(Y, LinearPhysics(A=lambda x: 2 * x, A_adjoint=lambda y: 2 * y), noise_level=0.03, smoothness=4.5)
    assert own.smoothness.source == "supplied"
    assert any("smoothness <= 4.5, as supplied" in line for line in own.tested)
