"""Projected gradient descent on an explicit energy: x+ = P(x - gamma (grad f + lambda grad R)(x)) [Attouch2013].

R is the potential of the denoiser at its noise level, P the projection onto the box [0, 1] of pixels; the map needs no proximal
operator, and one pass of R forward and back gives F = f + lambda R at a point together with the step that starts there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from torch import Tensor

from pnp import strengths
from pnp.algorithms.protocol import Applied, Denoise, Needs, grounded, settled
from pnp.algorithms.strength import Spectrum
from pnp.bounds import Refused
from pnp.explicit import is_guided
from pnp.guarantees import Guarantee, projected_descent
from pnp.points import Point, inner, length
from pnp.priors import DenoiserAtLevel, Prior
from pnp.problem import Problem
from stablenet.potential import Potential

FRACTION_OF_LIMIT = 0.95
USUAL = (3.0, 0.5)
"""Where no table speaks: the level of the potential in units of the noise, and the strength; the weight is strength/level^2."""


@dataclass(frozen=True)
class Descent:
    """Descent on f + lambda R over the box, for a potential that need not be convex: nothing is assumed of it.

    Parameters
    ----------
    step_size : gamma in (0, 2/U), U = L + lambda U_R; None takes 0.95 of that end. Critical points do not depend on it.
    weight : lambda > 0, the weight of R; None settles it from the noise level.
    """

    step_size: float | None = None
    weight: float | None = None
    relaxation: ClassVar[float] = 1.0
    needs: ClassVar[Needs] = Needs(frozenset({"gradient"}), Fraction(1))

    def settle(self, problem: Problem, prior: Prior) -> Descent:
        potential, weight, step_size = explicit_potential(prior), self.weight, self.step_size
        if weight is None:
            level = self.denoiser_noise_level(problem, prior)
            weight = chosen(problem, prior)[1] * (problem.noise_level / level) ** 2
        if step_size is None:
            total = replace(self, weight=weight).total(problem, potential)
            step_size = 2 * FRACTION_OF_LIMIT / total if total > 0 else 1.0
        return replace(self, step_size=step_size, weight=weight)

    def total(self, problem: Problem, potential: Potential | None) -> float:
        """U = L + lambda U_R: F(z) <= F(x) + <grad F(x), z - x> + U/2 |z - x|^2 for any two points."""
        return problem.smoothness.value + settled(self.weight) * (potential.smoothness_above if potential else 0.0)

    def denoiser_noise_level(self, problem: Problem, prior: Prior) -> float:
        end = math.inf if prior.accepts.max_noise_level is None else 0.999 * prior.accepts.max_noise_level
        return min(chosen(problem, prior)[0] * problem.noise_level, end)

    def guarantee(self, problem: Problem, prior: Prior) -> Guarantee:
        theorem = projected_descent(
            explicit_potential(prior),
            problem.smoothness.value,
            step_size=settled(self.step_size),
            weight=settled(self.weight),
            strong_convexity=problem.strong_convexity.value,
        )
        return grounded(theorem, problem, prior)

    def start(self, problem: Problem, image: Tensor) -> Point:
        return (image.clamp(0, 1),)

    def apply(self, problem: Problem, denoise: Denoise, point: Point, *, accuracy: float) -> Applied:
        if not isinstance(denoise, DenoiserAtLevel):
            raise TypeError(f"Descent needs a prior at its noise level, got {type(denoise).__name__}")
        (x,), gamma, weight = point, settled(self.step_size), settled(self.weight)
        value, gradient = problem.value_and_gradient(x)
        prior, slope = denoise.energy_and_gradient(x)
        gradient, energy = gradient + weight * slope, value + weight * prior.double()
        moved = (x - gamma * gradient).clamp(0, 1)
        step = (moved - x,)
        allowed = energy + inner((gradient,), step) + self.total(problem, denoise.potential) / 2 * inner(step, step)
        return Applied((moved,), moved, x.new_zeros(len(x)), energy, allowed)

    def estimate(self, problem: Problem, denoise: Denoise, point: Point) -> Tensor:
        return point[0]

    def norm(self, problem: Problem, difference: Point) -> Tensor:
        return length(difference)


def chosen(problem: Problem, prior: Prior) -> tuple[float, float]:
    """Level and strength: of the table behind a blur, 1 and 1 where A^T A is a projection, in between by `Spectrum`."""
    convex = explicit_potential(prior).weak_convexity == 0
    rungs = ("guided",) if is_guided(prior.module) else ("convex",) if convex else ()
    rungs = (*rungs, "weakly-convex")
    known = [strengths.chosen("Descent", rung, problem.noise_level) for rung in rungs]
    level, strength = next((pair for pair in known if pair is not None), USUAL)
    share = 1 - Spectrum.of(problem).projection
    return level**share, strength**share


def explicit_potential(prior: Prior) -> Potential:
    """What is proved of the prior's potential, or a refusal."""
    if prior.potential is None:
        raise Refused(
            f"Descent is not covered: it needs a denoiser with an explicit potential, and {type(prior.module).__name__} has "
            "none. Take one that has, as it is (the box is part of the algorithm), or pnp.PGD() with this denoiser."
        )
    return prior.potential
