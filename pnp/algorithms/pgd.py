"""Plug-and-play proximal gradient: x+ = D(x - gamma grad f(x)) [Venkatakrishnan2013; CombettesYamada2015]."""

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
    settled,
    settled_relaxation,
    smallest,
    weak_energy,
    weak_potential,
)
from pnp.algorithms.strength import denoiser_level, largest_step_size
from pnp.guarantees import Guarantee, proximal_descent, proximal_gradient
from pnp.points import Point, length
from pnp.priors import Prior
from pnp.problem import Problem

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
    needs: ClassVar[Needs] = Needs(frozenset({"gradient"}), Fraction(1), strict=True)

    def settle(self, problem: Problem, prior: Prior) -> PGD:
        relaxation = settled_relaxation("PGD", self.needs, self.relaxation, prior)
        step_size = self.step_size
        if step_size is None:
            smoothness, weak = problem.smoothness.value, weak_potential(prior)
            end = 2.0 if weak is None else 2 - weak.weak_convexity
            step_size = smallest(
                *([FRACTION_OF_LIMIT * end / smoothness] if smoothness else []), largest_step_size(problem, prior, relaxation)
            )
        return replace(self, step_size=step_size, relaxation=relaxation)

    @property
    def gamma(self) -> float:
        return settled(self.step_size)

    def denoiser_noise_level(self, problem: Problem, prior: Prior) -> float:
        return denoiser_level(problem, prior, self.gamma, settled(self.relaxation))

    def guarantee(self, problem: Problem, prior: Prior) -> Guarantee:
        weak, gamma = weak_potential(prior), Fraction(self.gamma)
        if weak is not None:
            curvature, strength = (gamma * Fraction(bound.value) for bound in (problem.smoothness, problem.strong_convexity))
            descent = proximal_descent("PGD", weak, curvature, step_size=self.gamma, strong_convexity=strength)
            return grounded(descent, problem, prior)
        theorem = proximal_gradient(
            prior.certificate,
            problem.smoothness.value,
            step_size=self.gamma,
            strong_convexity=problem.strong_convexity.value,
        )
        return grounded(theorem, problem, prior)

    def start(self, problem: Problem, image: Tensor) -> Point:
        return (image,)

    def apply(self, problem: Problem, denoise: Denoise, point: Point, *, accuracy: float) -> Applied:
        (x,) = point
        prior = weak_energy(denoise, x)
        energy = None if prior is None else self.gamma * problem.value(x) + prior
        moved, error = denoised(denoise, x - self.gamma * problem.gradient(x), accuracy)
        return Applied((moved,), moved, error, energy)

    def estimate(self, problem: Problem, denoise: Denoise, point: Point) -> Tensor:
        return point[0]

    def norm(self, problem: Problem, difference: Point) -> Tensor:
        return length(difference)
