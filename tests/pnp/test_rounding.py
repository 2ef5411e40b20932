"""Rounding is no violation: in single precision, far below the tolerance, no algorithm under any scheme is accused."""

from __future__ import annotations

import pytest
import torch

import pnp
from tests.inventory.algorithms import ALGORITHMS
from tests.inventory.denoisers import DENOISERS, Shrinkage
from tests.inventory.physics import PHYSICS
from tests.inventory.schemes import SCHEMES


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("physics", ["blur_fft", "blur_valid", "tomography"])
def test_single_precision_is_not_accused(physics: str, algorithm: str, scheme: str) -> None:
    problem = PHYSICS[physics].pose(torch.float32)
    stop = pnp.Stop(0.0, 60)
    solution = pnp.solve(
        ALGORITHMS[algorithm],
        problem,
        pnp.prior(Shrinkage()),
        scheme=SCHEMES[scheme],
        stop=stop,
        denoiser_noise_level=0.05,
        start=3 * problem.start,
    )
    assert torch.isfinite(solution.estimate).all()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("algorithm", ["pgd", "admm", "condat-vu"])
def test_nor_is_a_network(algorithm: str, scheme: str) -> None:
    problem, network = PHYSICS["blur_fft"].pose(torch.float32), DENOISERS["network"]().float()
    settings = {"stop": pnp.Stop(0.0, 60), "denoiser_noise_level": 0.05}
    solution = pnp.solve(ALGORITHMS[algorithm], problem, pnp.prior(network), scheme=SCHEMES[scheme], **settings)
    assert torch.isfinite(solution.estimate).all()


def test_equality_of_the_step_sizes_is_allowed() -> None:
    """tau sigma |K|^2 = 1: the norm of P is a seminorm, and its rounding is that of a square root."""
    for dtype in (torch.float32, torch.float64):
        problem = PHYSICS["denoising"].pose(dtype)
        solution = pnp.solve(pnp.CondatVu(0.5, 2.0), problem, pnp.prior(Shrinkage()), stop=pnp.Stop(0.0, 300))
        assert torch.isfinite(solution.estimate).all()
    with pytest.raises(pnp.Refused, match=r"dual_step_size must lie in \(0, 2.00\]"):
        pnp.solve(pnp.CondatVu(0.5, 2.01), problem, pnp.prior(Shrinkage()))
