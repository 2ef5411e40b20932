"""Gradient descent on regularization by denoising: x+ = x - gamma (grad f(x) + tau (x - D(x))) [Romano2017], with P4."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from torch import Tensor

from pnp.algorithms.protocol import Applied, Denoise, Needs, denoised, grounded, settled, smallest
from pnp.algorithms.strength import denoiser_level, largest_step_size
from pnp.guarantees import Guarantee, regularization_by_denoising
from pnp.points import Point, length
from pnp.priors import Prior
from pnp.problem import Problem

FRACTION_OF_LIMIT = 0.95


@dataclass(frozen=True)
class RED:
    """Regularization by denoising; the denoiser need only be nonexpansive.

    Parameters
    ----------
    step_size : gamma in (0, 2/(L + 2 alpha tau)); None takes 0.95 of that end. The fixed point does not depend on it.
    weight : tau > 0, the weight of the prior; None takes L/1.9, with which the fixed point is close to that of `PGD`, or more
        where the noise is so strong that the denoiser's range asks for it.
    """

    step_size: float | None = None
    weight: float | None = None
    relaxation: ClassVar[float] = 1.0
    needs: ClassVar[Needs] = Needs(frozenset({"gradient"}), Fraction(1))

    def settle(self, problem: Problem, prior: Prior) -> RED:
        smoothness, weight, step_size = problem.smoothness.value, self.weight, self.step_size
        if weight is None:
            usual = [2 * FRACTION_OF_LIMIT / smoothness] if smoothness else []
            weight = 1 / smallest(*usual, largest_step_size(problem, prior, self.relaxation))
        if step_size is None:
            total = smoothness + 2 * (prior.certificate.averagedness or 1.0) * weight
            step_size = 2 * FRACTION_OF_LIMIT / total if total > 0 else 1.0
        return replace(self, step_size=step_size, weight=weight)

    @property
    def gamma(self) -> float:
        return settled(self.step_size)

    @property
    def tau(self) -> float:
        return settled(self.weight)

    def denoiser_noise_level(self, problem: Problem, prior: Prior) -> float:
        return denoiser_level(problem, prior, 1 / self.tau, self.relaxation)

    def guarantee(self, problem: Problem, prior: Prior) -> Guarantee:
        theorem = regularization_by_denoising(
            prior.certificate, problem.smoothness.value, step_size=self.gamma, weight=self.tau
        )
        return grounded(theorem, problem, prior)

    def start(self, problem: Problem, image: Tensor) -> Point:
        return (image,)

    def apply(self, problem: Problem, denoise: Denoise, point: Point, *, accuracy: float) -> Applied:
        (x,) = point
        image, error = denoised(denoise, x, accuracy)
        x = x - self.gamma * (problem.gradient(x) + self.tau * (x - image))
        return Applied((x,), x, self.gamma * self.tau * error)

    def estimate(self, problem: Problem, denoise: Denoise, point: Point) -> Tensor:
        return point[0]

    def norm(self, problem: Problem, difference: Point) -> Tensor:
        return length(difference)
