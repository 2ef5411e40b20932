"""The estimate of what is left is right for power laws, and long work shows itself where there is no terminal, too."""

from __future__ import annotations

import io

import pytest
import torch

from pnp.cli.progress import Course, Reporter, duration, iterations_left, passes
from stablenet.networks import Denoiser, DenoiserArchitecture, Symmetrized


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("done", [8, 40])
def test_a_power_law_is_foretold(power: float, done: int) -> None:
    residuals = [k**-power for k in range(1, done + 1)]
    end = 400
    left = iterations_left(residuals, end**-power, budget=10_000)
    assert left == pytest.approx(end - done, rel=0.02)


@pytest.mark.parametrize(
    "residuals", [[1.0], [1.0] * 20, [1.0 + 0.1 * k for k in range(20)], [1.0 - 1e-9 * k for k in range(20)], [0.0] * 8]
)
def test_without_a_trend_the_budget_is_what_is_left(residuals: list[float]) -> None:
    assert iterations_left(residuals, 1e-4, budget=100) == 100 - len(residuals)
    assert iterations_left(residuals, 0.0, budget=100) == 100 - len(residuals)


def test_lines_come_now_and_then() -> None:
    stream = io.StringIO()
    eager, patient = Reporter(stream, every=0.0), Reporter(stream, every=1000.0)
    eager.began -= 30
    eager.tell("iteration 5", 0.5)
    patient.tell("iteration 6", 0.6)
    patient.tell("checking", 0.0, now=True)
    assert stream.getvalue() == "iteration 5, about 30 s left\nchecking\n"


@pytest.mark.parametrize(("seconds", "text"), [(40, "40 s"), (300, "5 min"), (7200, "2.0 h")])
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("symmetrized", [False, True])
def test_a_pass_is_told_by_its_strips(symmetrized: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share rises from one strip to the next and ends at 1, in each pass."""
    monkeypatch.setattr("stablenet.linear.strips.STRIP_SIZE", 4000)
    denoiser = Denoiser(DenoiserArchitecture(features=4, kernel_size=3, blocks=2)).eval()
    denoiser = Symmetrized(denoiser) if symmetrized else denoiser
    image, shares = torch.rand(1, 1, 90, 80), []
    with passes(lambda x: denoiser(x, 0.1), image, shares.append), torch.no_grad():
        for _ in range(2):
            denoiser(image, 0.1)
    half = len(shares) // 2
    assert half > 8 and shares[:half] == shares[half:] and shares[half - 1] == 1
    assert all(a < b for a, b in zip(shares[: half - 1], shares[1:half], strict=True))


def test_a_slow_iteration_is_told_by_its_pass() -> None:
    stream = io.StringIO()
    course = Course(Reporter(stream, every=0.0), tolerance=1e-4, budget=50)
    course.passing(0.1)
    course.since -= 5
    course.passing(0.25)
    course.iterated(0.01)
    assert stream.getvalue().splitlines()[0] == "iteration 1, 25% of the denoiser's pass"
    assert stream.getvalue().splitlines()[1].startswith("iteration 1, residual 1.00e-02, about")
    course.since -= 5
    course.passing(0.5)
    assert stream.getvalue().splitlines()[2] == "iteration 2, 50% of the denoiser's pass"
