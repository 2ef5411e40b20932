"""Each scheme obeys its own law: Plain's and Halpern's rate, the factor of over-relaxation, Anderson's budget."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import pnp
from pnp.points import Point, select
from tests.inventory.algorithms import ALGORITHMS
from tests.inventory.denoisers import Shrinkage
from tests.inventory.physics import PHYSICS
from tests.inventory.schemes import SCHEMES

LEVEL = 0.05


@pytest.fixture(scope="module")
def problem() -> pnp.Problem:
    return PHYSICS["blur_fft"].pose()


def fixed_point(run: pnp.Run) -> Point:
    """Of the run's map, by Anderson to the last digits, in the theorem's variable."""
    far = replace(run, scheme=pnp.Anderson(), stop=pnp.Stop(1e-12, 20000))
    *_, last = pnp.iterate(far)
    return last.state.point


def from_zero(algorithm: str, problem: pnp.Problem, scheme: object, iterations: int) -> pnp.Run:
    return pnp.plan(
        ALGORITHMS[algorithm],
        problem,
        pnp.prior(Shrinkage()),
        scheme=scheme,
        stop=pnp.Stop(0.0, iterations),
        start=torch.zeros_like(problem.start),
        denoiser_noise_level=LEVEL,
    )


@pytest.mark.parametrize("scheme", [pnp.Plain(), pnp.Overrelaxed(1.02), pnp.Halpern()], ids=repr)
@pytest.mark.parametrize("algorithm", ["pgd", "hqs", "drs", "red", "condat-vu"])
def test_the_residual_keeps_below_its_rate(algorithm: str, scheme: object, problem: pnp.Problem) -> None:
    run = from_zero(algorithm, problem, scheme, 120)
    start = run.algorithm.start(problem, run.start)
    difference = tuple(a - b for a, b in zip(start, fixed_point(run), strict=True))
    distance = float(run.algorithm.norm(problem, difference))
    for k, record in enumerate(pnp.iterate(run)):
        assert float(record.residual) <= run.guarantee.residual_bound(distance * (1 + 1e-9), k) + 1e-10
    assert math.isfinite(run.guarantee.residual_bound(distance, 0))


@pytest.mark.parametrize("scheme", [pnp.Plain(), pnp.Overrelaxed(1.02)], ids=repr)
def test_the_residual_never_rises(scheme: object, problem: pnp.Problem) -> None:
    residuals = torch.stack([record.residual for record in pnp.iterate(from_zero("pgd", problem, scheme, 200))])
    assert bool((residuals.diff(dim=0) <= 1e-12).all())


def test_over_relaxation_is_refused_from_one_over_alpha_on(problem: pnp.Problem) -> None:
    alpha = from_zero("pgd", problem, pnp.Plain(), 1).guarantee.averagedness
    with pytest.raises(pnp.Refused, match=r"factor=1.2 is not covered: .* <= 0.952381, so factor must lie in \(0, 1.04999"):
        from_zero("pgd", problem, pnp.Overrelaxed(1.2), 1)
    usual = pnp.plan(ALGORITHMS["pgd"], problem, pnp.prior(Shrinkage())).algorithm
    with pytest.raises(pnp.Refused, match=r"factor=1.06 is not covered: .* <= 0.952381, so factor must lie in \(0, 1.04999"):
        pnp.plan(usual, problem, pnp.prior(Shrinkage()), scheme=pnp.Overrelaxed(1.06))
    assert from_zero("pgd", problem, pnp.Overrelaxed(0.9999 / alpha), 1).guarantee.averagedness == alpha
    for factor in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(pnp.Refused, match="Overrelaxed"):
            from_zero("pgd", problem, pnp.Overrelaxed(factor), 1)


def test_a_step_size_left_open_makes_room_for_over_relaxation(problem: pnp.Problem) -> None:
    usual, longer = (
        pnp.plan(pnp.PGD(), problem, pnp.prior(Shrinkage()), scheme=s) for s in (pnp.Plain(), pnp.Overrelaxed(1.06))
    )
    assert 0.9 * usual.algorithm.step_size <= longer.algorithm.step_size < usual.algorithm.step_size
    assert 1.06 * longer.guarantee.averagedness < 1
    *_, last = pnp.iterate(longer)
    assert bool(last.converged.all())


@pytest.mark.parametrize("budget", [2.0, 1e-3])
def test_anderson_keeps_its_budget(budget: float, problem: pnp.Problem) -> None:
    """The n-th accepted jump has a residual of at most c r_0 (n+1)^(-1-eps); a small budget means plain steps."""
    scheme = pnp.Anderson(budget=budget)
    run = from_zero("pgd", problem, scheme, 1)
    point = run.algorithm.start(problem, run.start)
    memory = scheme.init(point, run.guarantee)
    accepted = refused = 0
    first = 0.0
    with torch.no_grad():
        for k in range(40):
            image = run.algorithm.apply(problem, run.denoise, point, accuracy=0.0).point
            residual = run.algorithm.norm(problem, tuple(a - b for a, b in zip(point, image, strict=True)))
            first = float(residual) if k == 0 else first
            was_jump = bool(memory.jumped)
            point, memory = scheme.next(k, point, image, residual, memory)
            if int(memory.accepted) > accepted:
                assert was_jump and float(residual) <= budget * first * int(memory.accepted) ** (-1.1) * (1 + 1e-12)
            elif was_jump:  # refused: the plain point is next, and nothing is remembered
                refused += 1
                assert not bool(memory.jumped)
                assert all(float(t.abs().max()) == 0 for dx, dg in memory.differences for t in (*dx, *dg))
            accepted = int(memory.accepted)
    assert accepted >= 10 and (refused > 0) == (budget < 1)


def test_anderson_takes_at_most_half_of_the_iterations(problem: pnp.Problem) -> None:
    count = {}
    for scheme in (pnp.Plain(), pnp.Anderson()):
        settings = {"stop": pnp.Stop(1e-8, 5000), "denoiser_noise_level": LEVEL}
        count[scheme] = pnp.solve(pnp.PGD(), problem, pnp.prior(Shrinkage()), scheme=scheme, **settings).iterations
    assert count[pnp.Anderson()] <= count[pnp.Plain()] / 2


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("algorithm", ["pgd", "condat-vu"])
def test_images_do_not_feel_each_other(algorithm: str, scheme: str) -> None:
    physics = PHYSICS["blur_fft"].make(torch.float64)
    generator = torch.Generator().manual_seed(3)
    y = torch.rand(3, 1, 9, 8, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 0.2, 0.6]).reshape(3, 1, 1, 1)

    def solved(part: Tensor) -> pnp.Solution:
        return pnp.solve(
            ALGORITHMS[algorithm],
            pnp.pose(part, physics, noise_level=0.03),
            pnp.prior(Shrinkage()),
            scheme=SCHEMES[scheme],
            stop=pnp.Stop(1e-3, 400),
            denoiser_noise_level=LEVEL,
        )

    together = solved(y)
    for i in range(3):
        alone = solved(y[i : i + 1])
        torch.testing.assert_close(together.estimate[i : i + 1], alone.estimate, atol=1e-8, rtol=0)
        torch.testing.assert_close(together.residuals[: alone.iterations, i], alone.residuals[:, 0], atol=1e-8, rtol=0)


def test_selecting_keeps_images_apart() -> None:
    a, b = (torch.zeros(2, 3),), (torch.ones(2, 3),)
    (chosen,) = select(torch.tensor([True, False]), a, b)
    assert chosen.tolist() == [[0.0] * 3, [1.0] * 3]
