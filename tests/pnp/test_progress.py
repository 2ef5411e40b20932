"""The estimate of what is left is right for power laws, and long work shows itself where there is no terminal, too."""

from __future__ import annotations

import io

import pytest

from pnp.cli.progress import Reporter, duration, iterations_left


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
    assert stream.getvalue() == "iteration 5, about 30 s left\n"


@pytest.mark.parametrize(("seconds", "text"), [(40, "40 s"), (300, "5 min"), (7200, "2.0 h")])
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text
