"""Signs of life on standard error: a line that moves on a terminal, a line now and then elsewhere, with what is left to do.

A residual falls about as k^(-p); p is read from the second half of the run, and tells when the tolerance will be met.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor

from stablenet.linear.strips import progress

EVERY = 10.0  # seconds between two lines where there is no terminal
SLOW = 2.0  # seconds from which on a pass of the denoiser is told by its strips


def iterations_left(residuals: Sequence[float], tolerance: float, budget: int) -> int:
    """How many more iterations until the residual meets the tolerance or the budget is spent, by the power law."""
    done = len(residuals)
    left = budget - done
    half = (done + 1) // 2
    if done < 4 or tolerance <= 0 or min(residuals[half - 1], residuals[-1]) <= 0:
        return left
    power = math.log(residuals[half - 1] / residuals[-1]) / math.log(done / half)
    if power <= 0:
        return left
    growth = math.log(max(residuals[-1] / tolerance, 1)) / power
    return left if growth > 30 else min(left, math.ceil(done * (math.exp(growth) - 1)))


def duration(seconds: float) -> str:
    """Seconds as one reads them: 40 s, 12 min, 3 h."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Reporter:
    """Told how far the work is; shows it at most every few seconds, or on each change on a terminal."""

    def __init__(self, stream: TextIO, every: float = EVERY) -> None:
        self.stream, self.every = stream, every
        self.began = self.last = time.monotonic()
        self.bar: Progress | None = None
        if stream.isatty():
            columns = (BarColumn(bar_width=24), TextColumn("{task.description}"))
            self.bar = Progress(*columns, console=Console(file=stream), transient=True)
            self.task = self.bar.add_task("", total=1.0)

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return time.monotonic() - self.began

    def tell(self, text: str, share: float, *, now: bool = False) -> None:
        """The state of the work, and the share of it that is done, in [0, 1]; `now` does not wait for the next line's turn."""
        if 0 < share < 1:
            text = f"{text}, about {duration(self.seconds * (1 - share) / share)} left"
        if self.bar is not None:
            self.bar.update(self.task, completed=share, description=text)
        elif now or time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            print(text, file=self.stream, flush=True)


@contextmanager
def reporting() -> Iterator[Reporter]:
    """A reporter to standard error for the time of the block; a terminal's line is cleared at its end."""
    reporter = Reporter(sys.stderr)
    if reporter.bar is None:
        yield reporter
        return
    with reporter.bar:
        yield reporter


class Course:
    """Tells where an iteration stands: after each iteration, and within one that is slow."""

    def __init__(self, reporter: Reporter, tolerance: float, budget: int) -> None:
        self.reporter, self.tolerance, self.budget = reporter, tolerance, budget
        self.residuals: list[float] = []
        self.left = budget
        self.since = reporter.seconds

    def iterated(self, residual: float) -> None:
        """One more iteration is done; its residual as a root mean square."""
        self.residuals.append(residual)
        self.left = iterations_left(self.residuals, self.tolerance, self.budget)
        self.since = self.reporter.seconds
        done = len(self.residuals)
        self.reporter.tell(f"iteration {done}, residual {residual:.2e}", done / (done + self.left))

    def passing(self, share: float) -> None:
        """So much of the next iteration's pass of the denoiser is done."""
        if self.reporter.seconds - self.since < SLOW:
            return
        done = len(self.residuals)
        known = done / (done + self.left) if done >= 4 else 0.0  # before, the budget is all that is known
        self.reporter.tell(f"iteration {done + 1}, {share:.0%} of the denoiser's pass", known)


@contextmanager
def passes(denoise: Callable[[Tensor], Tensor], image: Tensor, tell: Callable[[float], None]) -> Iterator[None]:
    """Within, `tell` hears what share of a denoiser's pass over the image is done, as its maps go through their strips.

    How many maps there are is counted on a corner of the image. A denoiser without such maps is silent.
    """
    heard = 0

    def count(rows: int, of: int) -> None:
        nonlocal heard
        heard += rows == of

    with progress(count), torch.no_grad(), suppress(RuntimeError, ValueError):  # a map may be frozen at images of one size
        denoise(image[..., :32, :32].contiguous())
    maps, heard = heard, 0

    def follow(rows: int, of: int) -> None:
        if maps:
            tell((heard % maps + rows / of) / maps)
        count(rows, of)

    with progress(follow):
        yield
