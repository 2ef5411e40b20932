"""Plug-and-play proximal gradient: x+ = D(x - gamma grad f(x)) [Venkatakrishnan2013; CombettesYamada2015]."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from pnp.algorithms.state import Denoise, State, denoiser_level, largest_step_size
from pnp.guarantees import Guarantee, largest_relaxation, proximal_gradient
from pnp.problem import Problem
from stablenet.certificate import Certificate

FRACTION_OF_LIMIT = 0.95


@dataclass(frozen=True)
class PGD:
    """Proximal gradient descent.

    Parameters
    ----------
    step_size : gamma in (0, 2/L), L the smoothness of the data fidelity; None takes 1.9/L, or less where the noise
        is so strong that the denoiser's range asks for it.
    relaxation : l, the denoiser used is (1 - l) I + l D; None takes 1, or 1/(2 alpha) for a denoiser that is merely
        nonexpansive. It sets the strength of the prior, so the fixed point depends on it.
    """

    step_size: float | None = None
    relaxation: float | None = None

    def settle(self, smoothness: float, certificate: Certificate, noise_level: float, max_noise_level: float) -> PGD:
        """These settings with every None replaced by a value for which the theorem holds."""
        step_size, relaxation = self.step_size, self.relaxation
        if relaxation is None:
            relaxation = 1.0 if certificate.is_averaged else largest_relaxation(certificate) or 1.0
        if step_size is None:
            step_size = min(
                2 * FRACTION_OF_LIMIT / smoothness if smoothness else math.inf,
                largest_step_size(relaxation, noise_level, max_noise_level),
            )
        return replace(self, step_size=step_size, relaxation=relaxation)

    def denoiser_noise_level(self, noise_level: float) -> float:
        """The sigma given to the denoiser when the caller does not choose one."""
        return denoiser_level(self.step_size, self.relaxation, noise_level)

    def guarantee(self, certificate: Certificate, problem: Problem) -> Guarantee:
        return proximal_gradient(certificate, problem.smoothness.value, step_size=self.step_size, relaxation=self.relaxation)

    def init(self, problem: Problem, denoise: Denoise, start: Tensor) -> State:
        return State(start, start, start.new_zeros(len(start)))

    def step(self, problem: Problem, denoise: Denoise, state: State, *, accuracy: float) -> State:
        x = state.variable
        x = denoise(x - self.step_size * problem.gradient(x))
        return State(x, x, x.new_zeros(len(x)))
