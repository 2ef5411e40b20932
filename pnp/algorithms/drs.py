"""Plug-and-play Douglas-Rachford splitting: t+ = t + prox_(gamma f)(2 D(t) - t) - D(t) [BauschkeCombettes2017, 26.11]."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from torch import Tensor

from pnp.algorithms.protocol import Applied, Denoise, Needs, denoised, grounded, settled, settled_relaxation, weak_potential
from pnp.algorithms.strength import denoiser_level, settled_step
from pnp.guarantees import Guarantee, douglas_rachford, weak_douglas_rachford
from pnp.points import Point, length
from pnp.priors import Prior
from pnp.problem import Problem


@dataclass(frozen=True)
class DRS:
    """Douglas-Rachford splitting; the theorem speaks of t, the estimate is D(t).

    Parameters
    ----------
    step_size : gamma > 0, any; None takes 2/L (the larger, the more a step trusts the data), or less where the noise
        is so strong that the denoiser's range asks for it.
    relaxation : l, the denoiser used is (1 - l) I + l D; None takes 1 for a firmly nonexpansive denoiser, else the
        largest l that makes it firmly nonexpansive, 1/(2 alpha). It sets the strength of the prior.
    """

    step_size: float | None = None
    relaxation: float | None = None
    needs: ClassVar[Needs] = Needs(frozenset({"prox"}), Fraction(1, 2))

    def settle(self, problem: Problem, prior: Prior) -> DRS:
        relaxation = settled_relaxation("DRS", self.needs, self.relaxation, prior)
        return replace(self, step_size=settled_step(self.step_size, problem, prior, relaxation), relaxation=relaxation)

    @property
    def gamma(self) -> float:
        return settled(self.step_size)

    def denoiser_noise_level(self, problem: Problem, prior: Prior) -> float:
        return denoiser_level(problem, prior, self.gamma, settled(self.relaxation))

    def guarantee(self, problem: Problem, prior: Prior) -> Guarantee:
        return theorem("DRS", self.gamma, problem, prior)

    def start(self, problem: Problem, image: Tensor) -> Point:
        return (problem.prox(image, self.gamma)[0],)

    def apply(self, problem: Problem, denoise: Denoise, point: Point, *, accuracy: float) -> Applied:
        (t,) = point
        x, first = denoised(denoise, t, accuracy)
        u, error = problem.prox(2 * x - t, self.gamma, accuracy=accuracy)
        return Applied((t + u - x,), x, first + error)  # u - x is nonexpansive in x

    def estimate(self, problem: Problem, denoise: Denoise, point: Point) -> Tensor:
        return denoise(point[0])

    def norm(self, problem: Problem, difference: Point) -> Tensor:
        return length(difference)


def theorem(name: str, step_size: float, problem: Problem, prior: Prior) -> Guarantee:
    """Douglas-Rachford's theorem for a problem and the prior that runs."""
    weak = weak_potential(prior)
    if weak is not None:
        strength = Fraction(step_size) * Fraction(problem.strong_convexity.value)
        return grounded(weak_douglas_rachford(name, weak, strength, step_size=step_size), problem, prior)
    guarantee = douglas_rachford(prior.certificate, step_size=step_size, exact_prox=problem.exact_prox, name=name)
    return grounded(guarantee, problem, prior)
