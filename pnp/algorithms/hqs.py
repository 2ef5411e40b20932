"""Plug-and-play half-quadratic splitting: x+ = D(prox_(gamma f)(x)) [Zhang2021; CombettesYamada2015]."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from torch import Tensor

from pnp.algorithms.protocol import (
    Applied,
    Denoise,
    Needs,
    denoised,
    grounded,
    lipschitz,
    settled,
    settled_relaxation,
    weak_energy,
    weak_potential,
)
from pnp.algorithms.strength import denoiser_level, settled_step
from pnp.guarantees import Guarantee, half_quadratic, proximal_descent
from pnp.points import Point, inner, length
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
        weak, gamma = weak_potential(prior), Fraction(self.gamma)
        if weak is not None:  # proximal gradient on the Moreau envelope of gamma f, of smoothness gamma L/(1 + gamma L)
            bounds = (gamma * Fraction(bound.value) for bound in (problem.smoothness, problem.strong_convexity))
            curvature, strength = (value / (1 + value) for value in bounds)
            descent = proximal_descent("HQS", weak, curvature, step_size=self.gamma, strong_convexity=strength)
            return grounded(descent, problem, prior)
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
        (x,) = point
        half, error = problem.prox(x, self.gamma, accuracy=accuracy)
        prior = weak_energy(denoise, x)
        energy = None if prior is None else self.gamma * problem.value(half) + inner((half - x,), (half - x,)) / 2 + prior
        moved, more = denoised(denoise, half, accuracy)
        return Applied((moved,), moved, lipschitz(denoise) * error + more, energy)

    def estimate(self, problem: Problem, denoise: Denoise, point: Point) -> Tensor:
        return point[0]

    def norm(self, problem: Problem, difference: Point) -> Tensor:
        return length(difference)
