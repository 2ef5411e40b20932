"""Plug-and-play ADMM, which is Douglas-Rachford splitting in t = u + z [BauschkeCombettes2017; Ryu2019].

With u = prox_(gamma f)(x - z), x+ = D(u + z), z+ = z + u - x+, the variable t = u + z obeys
t+ = t + prox_(gamma f)(2 D(t) - t) - D(t). The theorem speaks of t; x = D(t) is the estimate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from pnp.algorithms.state import Denoise, State, denoiser_level, largest_step_size
from pnp.guarantees import Guarantee, douglas_rachford, largest_relaxation
from pnp.problem import Problem
from stablenet.certificate import Certificate

STEP_SIZE = 2.0


@dataclass(frozen=True)
class ADMM:
    """Alternating direction method of multipliers.

    Parameters
    ----------
    step_size : gamma > 0, any; None takes 2/L (the larger, the more a step trusts the data), or less where the noise
        is so strong that the denoiser's range asks for it.
    relaxation : l, the denoiser used is (1 - l) I + l D; None takes 1 for a firmly nonexpansive denoiser, else the
        largest l that makes it firmly nonexpansive, 1/(2 alpha). It sets the strength of the prior.
    """

    step_size: float | None = None
    relaxation: float | None = None

    def settle(self, smoothness: float, certificate: Certificate, noise_level: float, max_noise_level: float) -> ADMM:
        """These settings with every None replaced by a value for which the theorem holds."""
        step_size, relaxation = self.step_size, self.relaxation
        if relaxation is None:
            relaxation = min(1.0, largest_relaxation(certificate)) or 1.0
        if step_size is None:
            step_size = min(
                STEP_SIZE / smoothness if smoothness else 1.0, largest_step_size(relaxation, noise_level, max_noise_level)
            )
        return replace(self, step_size=step_size, relaxation=relaxation)

    def denoiser_noise_level(self, noise_level: float) -> float:
        """The sigma given to the denoiser when the caller does not choose one."""
        return denoiser_level(self.step_size, self.relaxation, noise_level)

    def guarantee(self, certificate: Certificate, problem: Problem) -> Guarantee:
        return douglas_rachford(
            certificate, step_size=self.step_size, relaxation=self.relaxation, exact_prox=problem.exact_prox
        )

    def init(self, problem: Problem, denoise: Denoise, start: Tensor) -> State:
        t, error = problem.prox(start, self.step_size)
        return State(t, denoise(t), error)

    def step(self, problem: Problem, denoise: Denoise, state: State, *, accuracy: float) -> State:
        t, x = state.variable, state.estimate
        u, error = problem.prox(2 * x - t, self.step_size, accuracy=accuracy)
        t = t + u - x
        return State(t, denoise(t), error)
