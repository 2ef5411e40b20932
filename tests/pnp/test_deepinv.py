"""The same denoiser gives the same iterates in our algorithms and in deepinv's own, raw and wrapped."""

from __future__ import annotations

import deepinv
import pytest
import torch
from torch import Tensor, nn

import pnp

ITERATIONS, LEVEL = 20, 0.05


def deepinv_estimate(
    name: str, y: Tensor, physics: deepinv.physics.LinearPhysics, denoiser: nn.Module, step_size: float
) -> Tensor:
    algorithm = getattr(deepinv.optim, name)(
        data_fidelity=deepinv.optim.L2(),
        prior=deepinv.optim.PnP(denoiser),
        stepsize=step_size,
        g_param=LEVEL,
        max_iter=ITERATIONS,
        early_stop=False,
        custom_init=lambda y, physics: {"est": (y, torch.zeros_like(y))},
    )
    with torch.no_grad():
        return algorithm(y, physics)


@pytest.mark.parametrize("wrap", [lambda denoiser: denoiser, pnp.DeepinvDenoiser], ids=["raw", "wrapped"])
@pytest.mark.parametrize(
    ("name", "algorithm"), [("PGD", pnp.PGD(step_size=1.2)), ("ADMM", pnp.ADMM(step_size=3.0))], ids=["pgd", "admm"]
)
def test_the_iterates_agree(
    name: str,
    algorithm: pnp.PGD | pnp.ADMM,
    wrap: object,
    measurement: Tensor,
    physics: deepinv.physics.BlurFFT,
    denoiser: nn.Module,
) -> None:
    theirs = deepinv_estimate(name, measurement, physics, wrap(denoiser), algorithm.step_size)
    offset = 1 if name == "ADMM" else 0
    ours = pnp.solve(
        algorithm,
        measurement,
        physics,
        denoiser,
        noise_level=0.03,
        denoiser_noise_level=LEVEL,
        tolerance=0.0,
        max_iterations=ITERATIONS - offset,
    )
    torch.testing.assert_close(ours.estimate, theirs, atol=1e-5, rtol=0)


def test_deepinv_diverges_where_we_refuse(measurement: Tensor, physics: deepinv.physics.BlurFFT, denoiser: nn.Module) -> None:
    """Beyond 2/L the unguarded iteration grows; the guarded one does not start."""
    free = deepinv.optim.PGD(
        data_fidelity=deepinv.optim.L2(),
        prior=deepinv.optim.PnP(lambda x, sigma: x),
        stepsize=2.1,
        g_param=LEVEL,
        max_iter=300,
        early_stop=False,
    )
    with torch.no_grad():
        assert float(free(measurement, physics).abs().max()) > 1e3
    with pytest.raises(pnp.Refused):
        pnp.solve(pnp.PGD(step_size=2.1), measurement, physics, denoiser, noise_level=0.03)
