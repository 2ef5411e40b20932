"""A run converges under its theorem with a residual that never increases, and stops on everything that breaks it."""

from __future__ import annotations

import math

import deepinv
import pytest
import torch
from torch import Tensor, nn

import pnp
import stablenet.certificate
from stablenet.certificate import Certificate, CertificateTree
from stablenet.images.quality import psnr

ALGORITHMS = {"pgd": pnp.PGD(), "admm": pnp.ADMM()}


class Liar(nn.Module):
    """Claims to be firmly nonexpansive and expands."""

    factor = 1.5

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.factor * x


class Breaking(nn.Module):
    """Gives NaN from its fifth call on."""

    calls = 0

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        self.calls += 1
        return x * (math.nan if self.calls >= 5 else 0.9)


@stablenet.certificate.rule(Liar, Breaking)
def _claim(module: nn.Module) -> CertificateTree:
    return CertificateTree("claim", Certificate(1.0, 0.5))


@pytest.fixture(params=ALGORITHMS)
def algorithm(request: pytest.FixtureRequest) -> pnp.PGD | pnp.ADMM:
    return ALGORITHMS[request.param]


def test_the_run_restores_and_converges(
    algorithm: object, measurement: Tensor, physics: deepinv.physics.BlurFFT, denoiser: nn.Module, image: Tensor
) -> None:
    solution = pnp.solve(algorithm, measurement, physics, denoiser, noise_level=0.03)
    assert solution.converged and bool(solution.converged_per_image.all())
    assert solution.estimate.shape == image.shape and not solution.estimate.requires_grad
    assert solution.residuals.shape == (solution.iterations, 1)
    assert float(solution.residuals[-1, 0]) <= 1e-4 * math.sqrt(image[0].numel())
    assert psnr(solution.estimate, image) > psnr(measurement, image) + 1
    assert "fixed point exists" in str(solution.guarantee)  # proved here: the symbol of the blur has no zero


def test_the_residual_never_increases_and_keeps_below_its_rate(
    algorithm: object, measurement: Tensor, physics: deepinv.physics.BlurFFT, denoiser: nn.Module
) -> None:
    y = measurement.double()
    solution = pnp.solve(algorithm, y, physics.double(), denoiser, noise_level=0.03, tolerance=0.0, max_iterations=300)
    residuals = solution.residuals[:, 0]
    assert bool((residuals.diff() <= 1e-12 * residuals[0]).all())
    for k, residual in enumerate(residuals):
        assert float(residual) <= solution.guarantee.residual_bound(1.001 * float(solution.distance), k)


def test_both_algorithms_reach_the_same_fixed_point(
    measurement: Tensor, physics: deepinv.physics.BlurFFT, denoiser: nn.Module
) -> None:
    """With one step size and one denoiser, x = D(x - gamma grad f(x)) is the fixed point of both."""
    settings = {"noise_level": 0.03, "denoiser_noise_level": 0.04, "tolerance": 1e-9, "max_iterations": 3000}
    y, physics = measurement.double(), physics.double()
    by_pgd = pnp.solve(pnp.PGD(step_size=1.5), y, physics, denoiser, **settings)
    by_admm = pnp.solve(pnp.ADMM(step_size=1.5), y, physics, denoiser, **settings)
    torch.testing.assert_close(by_pgd.estimate, by_admm.estimate, atol=1e-6, rtol=0)


def test_images_of_a_batch_do_not_feel_each_other(algorithm: object, denoiser: nn.Module, image: Tensor) -> None:
    physics = deepinv.physics.Denoising()
    generator = torch.Generator().manual_seed(1)
    clean = torch.cat([image, 0.2 * image, torch.ones_like(image)])
    y = clean + torch.tensor([0.02, 0.1, 0.05]).reshape(3, 1, 1, 1) * torch.randn(clean.shape, generator=generator)
    together = pnp.solve(algorithm, y, physics, denoiser, noise_level=0.05, tolerance=1e-5)
    for i in range(3):
        alone = pnp.solve(algorithm, y[i : i + 1], physics, denoiser, noise_level=0.05, tolerance=1e-5)
        torch.testing.assert_close(together.estimate[i : i + 1], alone.estimate, atol=1e-6, rtol=0)
        torch.testing.assert_close(together.residuals[: alone.iterations, i], alone.residuals[:, 0], atol=1e-5, rtol=0)
    assert bool(together.converged_per_image.all())


def test_color_is_restored_by_a_gray_denoiser(algorithm: object, denoiser: nn.Module, image: Tensor, kernel: Tensor) -> None:
    color = torch.cat([image, 0.7 * image, 1 - image], dim=1)
    physics = deepinv.physics.BlurFFT(img_size=(3, 48, 48), filter=kernel)
    together = pnp.solve(algorithm, physics.A(color), physics, denoiser, noise_level=0.02, max_iterations=20)
    gray = deepinv.physics.BlurFFT(img_size=(1, 48, 48), filter=kernel)
    alone = pnp.solve(
        algorithm,
        gray.A(color[:, 2:]),
        gray,
        denoiser,
        noise_level=0.02,
        max_iterations=together.iterations,
        tolerance=0,
    )
    torch.testing.assert_close(together.estimate[:, 2:], alone.estimate, atol=1e-5, rtol=0)


@pytest.mark.parametrize("padding", ["valid", "constant"])
def test_spatial_blurs_run_with_an_iterated_prox(
    algorithm: object, padding: str, image: Tensor, kernel: Tensor, denoiser: nn.Module
) -> None:
    physics = deepinv.physics.Blur(kernel, padding=padding, use_fft=padding == "valid")
    y = physics.A(image)
    y = y + 0.03 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    solution = pnp.solve(algorithm, y, physics, denoiser, noise_level=0.03, max_iterations=2000, tolerance=1e-5)
    assert solution.converged
    x, gamma = solution.estimate, solution.algorithm.step_size
    again = denoiser(x - gamma * pnp.pose(y, physics, noise_level=0.03).gradient(x), solution.denoiser_noise_level)
    assert float((x - again).square().mean().sqrt()) < 1e-4


def test_a_step_size_outside_the_theorem_is_refused(
    measurement: Tensor, physics: deepinv.physics.BlurFFT, denoiser: nn.Module
) -> None:
    with pytest.raises(pnp.Refused, match=r"PGD with step_size=2.4 is not covered: smoothness <= 1.0.*\(0, 1.99"):
        pnp.solve(pnp.PGD(step_size=2.4), measurement, physics, denoiser, noise_level=0.03)


def test_admm_relaxes_by_itself_and_refuses_to_be_told_otherwise(
    measurement: Tensor, physics: deepinv.physics.BlurFFT, make_denoiser: type
) -> None:
    strong = make_denoiser(step=0.2)
    solution = pnp.solve(pnp.ADMM(), measurement, physics, strong, noise_level=0.03)
    assert 0.62 < solution.algorithm.relaxation <= 0.625
    with pytest.raises(pnp.Refused, match="firmly nonexpansive"):
        pnp.solve(pnp.ADMM(relaxation=1.0), measurement, physics, strong, noise_level=0.03)


@pytest.mark.parametrize("relaxation", [0.0, -0.5, math.nan])
def test_a_relaxation_that_is_none_is_refused(
    relaxation: float, measurement: Tensor, physics: deepinv.physics.BlurFFT, denoiser: nn.Module
) -> None:
    for algorithm in (pnp.PGD(relaxation=relaxation), pnp.ADMM(relaxation=relaxation)):
        with pytest.raises(pnp.Refused, match="relaxation must be positive"):
            pnp.solve(algorithm, measurement, physics, denoiser, noise_level=0.03)


def test_pgd_relaxes_a_merely_nonexpansive_denoiser(
    measurement: Tensor, physics: deepinv.physics.BlurFFT, make_denoiser: type
) -> None:
    solution = pnp.solve(pnp.PGD(), measurement, physics, make_denoiser(step=0.25), noise_level=0.03)
    assert solution.algorithm.relaxation == 0.5 and solution.converged


def test_strong_noise_keeps_the_default_within_the_range_of_the_denoiser(
    algorithm: object, image: Tensor, denoiser: nn.Module
) -> None:
    solution = pnp.solve(algorithm, image, deepinv.physics.Denoising(), denoiser, noise_level=0.4, max_iterations=3)
    assert solution.denoiser_noise_level <= denoiser.max_noise_level


def test_a_false_certificate_is_caught(algorithm: object, measurement: Tensor, physics: deepinv.physics.BlurFFT) -> None:
    with pytest.raises(pnp.GuaranteeViolated, match=r"image 0 rose from .* at iteration \d+"):
        pnp.solve(algorithm, measurement, physics, Liar(), noise_level=0.03)


def test_a_false_smoothness_is_caught(image: Tensor, denoiser: nn.Module) -> None:
    """The probe sees 10 steps of power iteration; an operator whose norm sits in one pixel escapes it."""
    weights = torch.ones_like(image)
    weights[..., 20, 20] = 1.45
    physics = deepinv.physics.LinearPhysics(A=lambda x: weights * x, A_adjoint=lambda y: weights * y)
    spike = image.clone()
    spike[..., 20, 20] = 9.0
    with pytest.raises((pnp.GuaranteeViolated, pnp.Refused)):
        pnp.solve(
            pnp.PGD(step_size=1.9),
            image,
            physics,
            denoiser,
            noise_level=0.03,
            denoiser_noise_level=0.0,
            smoothness=1.0,
            init=spike,
            max_iterations=200,
        )


def test_nan_stops_the_run_and_names_the_iteration(measurement: Tensor, physics: deepinv.physics.BlurFFT) -> None:
    with pytest.raises(FloatingPointError, match="iteration 5 "):
        pnp.solve(pnp.PGD(), measurement, physics, Breaking(), noise_level=0.03)


def test_the_budget_is_no_error(measurement: Tensor, physics: deepinv.physics.BlurFFT, denoiser: nn.Module) -> None:
    solution = pnp.solve(pnp.PGD(), measurement, physics, denoiser, noise_level=0.03, max_iterations=3, tolerance=0)
    assert not solution.converged and solution.iterations == 3


def test_records_are_yielded_and_the_caller_may_stop(
    measurement: Tensor, physics: deepinv.physics.BlurFFT, denoiser: nn.Module
) -> None:
    seen: list[int] = []
    pnp.solve(
        pnp.PGD(),
        measurement,
        physics,
        denoiser,
        noise_level=0.03,
        max_iterations=4,
        tolerance=0,
        callback=lambda record: seen.append(record.iteration),
    )
    assert seen == [1, 2, 3, 4]
    for record in pnp.iterate(pnp.plan(pnp.PGD(), measurement, physics, denoiser, noise_level=0.03)):
        assert torch.is_grad_enabled()
        if record.iteration == 2:
            break
    assert record.state.estimate.shape == measurement.shape


def test_the_start_can_be_given(measurement: Tensor, physics: deepinv.physics.BlurFFT, denoiser: nn.Module) -> None:
    settings = {"noise_level": 0.03, "tolerance": 1e-7, "max_iterations": 5000}
    y, physics = measurement.double(), physics.double()
    far = pnp.solve(pnp.PGD(), y, physics, denoiser, init=torch.zeros_like(y), **settings)
    near = pnp.solve(pnp.PGD(), y, physics, denoiser, **settings)
    torch.testing.assert_close(far.estimate, near.estimate, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_level": 0.0}, "noise_level"),
        ({"noise_level": math.nan}, "noise_level"),
        ({"denoiser_noise_level": 0.5}, r"denoiser_noise_level=0.5 .*0.1961"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"init": torch.zeros(1, 1, 4, 4)}, "init must be"),
        ({"init": torch.full((1, 1, 48, 48), math.nan)}, "init has NaN"),
        ({"smoothness": -1.0}, "smoothness must be"),
    ],
)
def test_bad_settings_are_errors(
    changes: dict, message: str, measurement: Tensor, physics: deepinv.physics.BlurFFT, denoiser: nn.Module
) -> None:
    with pytest.raises(ValueError, match=message):
        pnp.solve(pnp.PGD(), measurement, physics, denoiser, **{"noise_level": 0.03, **changes})
