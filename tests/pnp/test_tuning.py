"""Strength without a reference: the residual takes the size of the noise, and the estimated risk is the true one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import pnp
from pnp import tuning
from tests.inventory.denoisers import Shrinkage
from tests.inventory.energies import Bent


@pytest.mark.parametrize("algorithm", [pnp.PGD(), pnp.ADMM(), pnp.Descent()], ids=["pgd", "admm", "descent"])
def test_the_residual_takes_the_size_of_the_noise(algorithm: object, measurement: Tensor, physics: object) -> None:
    denoiser = Bent() if isinstance(algorithm, pnp.Descent) else Shrinkage(threshold=0.5)
    s = pnp.solve(algorithm, measurement, physics, denoiser, noise_level=0.03, strength=pnp.Discrepancy(), tolerance=1e-5)
    usual = pnp.solve(algorithm, measurement, physics, denoiser, noise_level=0.03, tolerance=1e-5)
    sizes = [float((physics.A(found.estimate) - measurement).square().mean()) / 0.03**2 for found in (s, usual)]
    assert abs(sizes[0] - 0.97) < 0.05 and abs(sizes[0] - 0.97) < abs(sizes[1] - 0.97)
    assert s.converged and s.guarantee.source == usual.guarantee.source


def test_a_stronger_run_keeps_its_theorem(measurement: Tensor, physics: object) -> None:
    run = pnp.plan(pnp.Descent(), measurement, physics, Bent(mu=1.0, rho=0.1), noise_level=0.03)
    more = tuning.stronger(run, 5.0)
    assert more.algorithm.weight == pytest.approx(5 * run.algorithm.weight)
    assert more.algorithm.step_size < run.algorithm.step_size and more.guarantee.watch.decrease > 0
    averaged = pnp.plan(pnp.PGD(), measurement, physics, Shrinkage(), noise_level=0.03)
    assert tuning.stronger(averaged, 1e9).denoiser_noise_level == pytest.approx(0.999 * 50 / 255)


def test_steins_risk_is_the_mean_square_error(image: Tensor) -> None:
    clean = image.double().repeat(6, 1, 1, 1)
    generator = torch.Generator().manual_seed(1)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    levels = [0.02, 0.05, 0.1, 0.19]
    best, risks = tuning.stein(Shrinkage(steps=4), noisy, 0.1, levels, generator=generator)
    true = [float((Shrinkage(steps=4)(noisy, level) - clean).square().mean()) for level in levels]
    assert risks == pytest.approx(true, rel=0.08) and best == levels[true.index(min(true))]
