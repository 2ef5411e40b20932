"""What an algorithm is to the loop: settings that can be settled, a first state, a step, and its theorem."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from pnp.guarantees import Guarantee
from pnp.problem import Problem
from stablenet.certificate import Certificate

Denoise = Callable[[Tensor], Tensor]
STRENGTH = 0.55


def denoiser_level(step_size: float, relaxation: float, noise_level: float) -> float:
    """sigma = c sqrt(gamma/l) noise.

    Descending f/noise^2 + R with the step gamma noise^2 denoises with the variance gamma noise^2, of which the
    relaxed denoiser (1 - l) I + l D does the part l. c = 0.55 suits both smooth and textured photographs, at noise
    levels 0.01 to 0.05.
    """
    return STRENGTH * math.sqrt(step_size / relaxation) * noise_level


def largest_step_size(relaxation: float, noise_level: float, max_noise_level: float) -> float:
    """The step size at which `denoiser_level` comes to the end of the denoiser's range."""
    return relaxation * (0.999 * max_noise_level / (STRENGTH * noise_level)) ** 2


@dataclass(frozen=True)
class State:
    """One iterate.

    Parameters
    ----------
    variable : the variable that the theorem speaks of, (batch, ...); its change is the fixed-point residual.
    estimate : the image that goes with it, (batch, channels, height, width).
    error : (batch,) a bound of the distance between `variable` and what an exact step would have given.
    """

    variable: Tensor
    estimate: Tensor
    error: Tensor


class Algorithm(Protocol):
    """Settings with None for what is chosen by `settle`; all other methods need settled settings."""

    @property
    def step_size(self) -> float | None: ...

    @property
    def relaxation(self) -> float | None: ...

    def settle(self, smoothness: float, certificate: Certificate, noise_level: float, max_noise_level: float) -> Algorithm: ...

    def denoiser_noise_level(self, noise_level: float) -> float: ...

    def guarantee(self, certificate: Certificate, problem: Problem) -> Guarantee: ...

    def init(self, problem: Problem, denoise: Denoise, start: Tensor) -> State: ...

    def step(self, problem: Problem, denoise: Denoise, state: State, *, accuracy: float) -> State: ...
