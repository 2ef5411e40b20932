"""Every algorithm x scheme x prior converges under its watch or is refused with a reason, on every physics."""

from __future__ import annotations

import pytest
import torch

import pnp
from tests.inventory.algorithms import ALGORITHMS
from tests.inventory.denoisers import DENOISERS
from tests.inventory.physics import PHYSICS
from tests.inventory.schemes import SCHEMES


@pytest.fixture(scope="module")
def blurred() -> pnp.Problem:
    return PHYSICS["blur_fft"].pose()


@pytest.mark.parametrize("denoiser", DENOISERS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_combination_converges_or_is_refused(algorithm: str, scheme: str, denoiser: str, blurred: pnp.Problem) -> None:
    try:
        run = pnp.plan(
            ALGORITHMS[algorithm],
            blurred,
            pnp.prior(DENOISERS[denoiser]()),
            scheme=SCHEMES[scheme],
            stop=pnp.Stop(2e-3, 3000),
            denoiser_noise_level=0.02,
        )
    except pnp.Refused as refusal:
        assert scheme == "overrelaxed" and "averagedness of the iteration map is <=" in str(refusal)
        return
    *_, record = pnp.iterate(run)
    assert bool(record.converged.all())
    again = run.algorithm.apply(run.problem, run.denoise, record.state.point, accuracy=1e-9)
    moved = tuple(a - b for a, b in zip(record.state.point, again.point, strict=True))
    assert float(run.algorithm.norm(run.problem, moved)) <= float(record.residual) * (1 + 1e-6) + 1e-9


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("physics", PHYSICS)
def test_every_physics_is_solved_by_every_algorithm(physics: str, algorithm: str) -> None:
    problem = PHYSICS[physics].pose()
    solution = pnp.solve(
        ALGORITHMS[algorithm],
        problem,
        pnp.prior(DENOISERS["clipped"]()),
        scheme=pnp.Anderson(),
        stop=pnp.Stop(1e-3, 2000),
        denoiser_noise_level=0.05,
    )
    assert solution.converged
    if algorithm != "condat-vu-box":
        assert "a fixed point exists" not in "".join(solution.guarantee.assumptions)
    assert torch.isfinite(solution.estimate).all()
