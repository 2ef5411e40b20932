"""Guided runs: each keeps its theorem while its guide is held fixed, the last carries the guarantee, and says so."""

from __future__ import annotations

import pytest
import torch

import pnp
from pnp import guiding
from pnp.guarantees import ARITHMETIC
from tests.inventory.denoisers import Shrinkage
from tests.inventory.guided import Guided
from tests.inventory.physics import PHYSICS
from tests.inventory.potentials import SHAPES, wild_ridge

SETTINGS = {"denoiser_noise_level": 0.1, "stop": pnp.Stop(1e-8, 4000)}


@pytest.fixture(scope="module")
def problem() -> pnp.Problem:
    return PHYSICS["blur_fft"].pose()


def test_the_last_run_carries_the_guarantee(problem: pnp.Problem) -> None:
    seen: list[pnp.Record] = []
    s = pnp.solve_guided(pnp.PGD(), problem, None, Guided(), refreshes=2, callback=seen.append, **SETTINGS)
    assert s.converged and len(s.refreshes) == 2 and 0 < s.refreshes[0] < s.refreshes[1] < s.iterations == len(seen)
    assert s.guarantee.theorem.endswith("with the guide held fixed while x moves")
    assert s.guarantee.assumptions == (ARITHMETIC,)  # clipped, so that a fixed point exists
    assert "this rung gives up: the guide was computed from the measurement" in str(s.guarantee)
    guide = seen[s.refreshes[1] - 1].estimate
    frozen = pnp.Clipped(Guided().prepare(guide, 0.1))
    alone = pnp.solve(pnp.PGD(), problem, pnp.prior(frozen), start=guide, **SETTINGS)
    assert torch.equal(alone.estimate, s.estimate)  # the run from its guide, nothing else
    assert bool((s.residuals[s.refreshes[1] :].diff(dim=0) <= 1e-12).all())


def test_refreshing_to_the_end_comes_to_a_rest(problem: pnp.Problem) -> None:
    few, more = (pnp.solve_guided(pnp.HQS(), problem, None, Guided(), refreshes=n, **SETTINGS) for n in (24, 25))
    first = pnp.solve_guided(pnp.HQS(), problem, None, Guided(), refreshes=0, **SETTINGS)
    assert first.refreshes == ()
    assert float((few.estimate - more.estimate).norm()) <= 0.15 * float((few.estimate - first.estimate).norm())


def test_a_guide_that_follows_is_caught() -> None:
    """Its map is not nonexpansive: the weights change with x."""
    problem = PHYSICS["denoising"].pose()
    with pytest.raises(pnp.GuaranteeViolated):
        for seed in range(20):
            start = torch.rand(problem.start.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            pnp.solve_guided(
                pnp.PGD(),
                pnp.pose(start, problem.physics, noise_level=0.03),
                None,
                Guided(step=0.24, follows=True),
                refreshes=0,
                scheme=pnp.Anderson(),
                denoiser_noise_level=0.05,
                clipped=False,
                start=start.flip(-1),
                stop=pnp.Stop(1e-9, 200),
            )


def test_the_guide_is_nobody_elses(problem: pnp.Problem) -> None:
    """A guide that is written to after it was taken changes nothing."""
    start = problem.start.clone()

    def spoil(record: pnp.Record) -> None:
        start.zero_()

    s = pnp.solve_guided(pnp.PGD(), problem, None, Guided(), refreshes=0, start=start, callback=spoil, **SETTINGS)
    calm = pnp.solve_guided(pnp.PGD(), problem, None, Guided(), refreshes=0, **SETTINGS)
    assert torch.equal(s.estimate, calm.estimate)


def test_color_is_guided_channel_by_channel() -> None:
    problem = PHYSICS["blur_fft_color"].pose()
    s = pnp.solve_guided(pnp.PGD(), problem, None, Guided(), refreshes=1, stop=pnp.Stop(1e-5, 2000))
    assert s.converged and s.estimate.shape[1] == 3 and 0 < s.denoiser_noise_level < 0.2


def test_what_is_not_guided_is_refused(problem: pnp.Problem) -> None:
    with pytest.raises(pnp.Refused, match="Shrinkage is not guided"):
        pnp.solve_guided(pnp.PGD(), problem, None, Shrinkage())
    with pytest.raises(ValueError, match="refreshes"):
        pnp.solve_guided(pnp.PGD(), problem, None, Guided(), refreshes=-1)
    with pytest.raises(TypeError, match="noise_level"):
        pnp.solve_guided(pnp.PGD(), problem.measurement, problem.physics, Guided())


def test_a_potential_begins_where_there_is_one(problem: pnp.Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first guide is the potential's own critical point: reweighted there, it stays."""
    ridge = wild_ridge(SHAPES["weakly-convex"]).double()
    seen: list[pnp.Record] = []
    monkeypatch.setattr(guiding, "EARLIER", pnp.Stop(1e-9, 4000))
    s = pnp.solve_guided(pnp.Descent(), problem, None, ridge, refreshes=1, callback=seen.append, stop=pnp.Stop(1e-8, 2000))
    alone = pnp.solve(pnp.Descent(), problem, ridge, scheme=pnp.QuasiNewton(), stop=guiding.EARLIER)
    assert torch.equal(seen[s.refreshes[0] - 1].estimate, alone.estimate)
    assert s.guarantee.theorem.endswith("with the guide held fixed while x moves")
    torch.testing.assert_close(s.estimate, alone.estimate, rtol=0, atol=1e-6)
    no_refresh = pnp.solve_guided(pnp.Descent(), problem, None, ridge, refreshes=0, stop=pnp.Stop(1e-4, 2000))
    assert no_refresh.refreshes == ()
    with pytest.raises(pnp.Refused, match="step_size=90"):  # before the potential's own run
        next(guiding.guided_stages(pnp.Descent(step_size=90.0), problem, wild_ridge(SHAPES["convex"]).double()))


class Told(Guided):
    """A guided denoiser that keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[float, float]] = []

    def prepare_behind(self, guide: torch.Tensor, sigma: float, noise_level: float) -> torch.nn.Module:
        self.told.append((sigma, noise_level))
        return self.prepare(guide, sigma)


def test_the_measurement_s_noise_is_told(problem: pnp.Problem) -> None:
    denoiser = Told()
    pnp.solve_guided(pnp.PGD(), problem, None, denoiser, refreshes=1, **SETTINGS)
    assert denoiser.told == [(0.1, problem.noise_level)] * 2
