"""Plug-and-play ADMM, which is Douglas-Rachford splitting in t = u + z [BauschkeCombettes2017; Ryu2019].

With u = prox_(gamma f)(x - z), x+ = D(u + z), z+ = z + u - x+, the variable t = u + z obeys
t+ = t + prox_(gamma f)(2 D(t) - t) - D(t). The theorem speaks of t; x = D(t) is the estimate and z = t - x.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from pnp.algorithms import drs
from pnp.algorithms.protocol import Applied, Denoise, Needs, denoised, settled, settled_relaxation
from pnp.algorithms.strength import denoiser_level, settled_step
from pnp.guarantees import Guarantee
from pnp.points import Point, length
from pnp.priors import Prior
from pnp.problem import Problem


@dataclass(frozen=True)
class ADMM:
    """Alternating direction method of multipliers.

    Parameters
    ----------
    step_size, relaxation : as in `DRS`.
    """

    step_size: float | None = None
    relaxation: float | None = None
    needs: ClassVar[Needs] = drs.DRS.needs

    def settle(self, problem: Problem, prior: Prior) -> ADMM:
        relaxation = settled_relaxation("ADMM", self.needs, self.relaxation, prior)
        return replace(self, step_size=settled_step(self.step_size, problem, prior, relaxation), relaxation=relaxation)

    @property
    def gamma(self) -> float:
        return settled(self.step_size)

    def denoiser_noise_level(self, problem: Problem, prior: Prior) -> float:
        return denoiser_level(problem, prior, self.gamma, settled(self.relaxation))

    def guarantee(self, problem: Problem, prior: Prior) -> Guarantee:
        return drs.theorem("ADMM", self.gamma, problem, prior)

    def start(self, problem: Problem, image: Tensor) -> Point:
        return (problem.prox(image, self.gamma)[0],)

    def apply(self, problem: Problem, denoise: Denoise, point: Point, *, accuracy: float) -> Applied:
        (t,) = point
        x, first = denoised(denoise, t, accuracy)
        z = t - x
        u, error = problem.prox(x - z, self.gamma, accuracy=accuracy)
        return Applied((u + z,), x, first + error)  # u - x is nonexpansive in x

    def estimate(self, problem: Problem, denoise: Denoise, point: Point) -> Tensor:
        return denoise(point[0])

    def norm(self, problem: Problem, difference: Point) -> Tensor:
        return length(difference)
