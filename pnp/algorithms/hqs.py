"""Plug-and-play half-quadratic splitting: x+ = D(prox_(gamma f)(x)) [Zhang2021; CombettesYamada2015]."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from torch import Tensor

from pnp.algorithms.protocol import Applied, Denoise, Needs, grounded, settled, settled_relaxation
from pnp.algorithms.strength import denoiser_level, settled_step
from pnp.guarantees import Guarantee, half_quadratic
from pnp.points import Point, length
from pnp.priors import Prior
from pnp.problem import Problem


@dataclass(frozen=True)
class HQS:
    """Half-quadratic splitting with a fixed penalty.

    Parameters
    ----------
    step_size : gamma > 0, any; None takes 2/L, or less where the noise is so strong that the denoiser's range asks for it.
    relaxation : as in `PGD`.
    """

    step_size: float | None = None
    relaxation: float | None = None
    needs: ClassVar[Needs] = Needs(frozenset({"prox"}), Fraction(1), strict=True)

    def settle(self, problem: Problem, prior: Prior) -> HQS:
        relaxation = settled_relaxation("HQS", self.needs, self.relaxation, prior)
        return replace(self, step_size=settled_step(self.step_size, problem, prior, relaxation), relaxation=relaxation)

    @property
    def gamma(self) -> float:
        return settled(self.step_size)

    def denoiser_noise_level(self, problem: Problem, prior: Prior) -> float:
        return denoiser_level(problem, prior, self.gamma, settled(self.relaxation))

    def guarantee(self, problem: Problem, prior: Prior) -> Guarantee:
        theorem = half_quadratic(
            prior.certificate,
            step_size=self.gamma,
            strong_convexity=problem.strong_convexity.value,
            exact_prox=problem.exact_prox,
        )
        return grounded(theorem, problem, prior)

    def start(self, problem: Problem, image: Tensor) -> Point:
        return (image,)

    def apply(self, problem: Problem, denoise: Denoise, point: Point, *, accuracy: float) -> Applied:
        half, error = problem.prox(point[0], self.gamma, accuracy=accuracy)
        x = denoise(half)
        return Applied((x,), x, error)

    def estimate(self, problem: Problem, denoise: Denoise, point: Point) -> Tensor:
        return point[0]

    def norm(self, problem: Problem, difference: Point) -> Tensor:
        return length(difference)
