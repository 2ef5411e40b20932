"""Condat-Vu: x+ = D(x - tau grad f(x) - tau K^T u), u+ = prox_(sigma g*)(u + sigma K(2x+ - x)) [Condat2013; Vu2013].

The data fidelity |Ax - y|^2/2 is g with K = A, by the proximal operator of its conjugate, or it is f; the box [0, 1] of pixels
may be a second g, with K = I. Each g has a dual variable of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from pnp.algorithms.protocol import Applied, Denoise, Needs, denoised, grounded, settled, settled_relaxation, smallest
from pnp.algorithms.strength import denoiser_level, largest_step_size
from pnp.guarantees import Guarantee, condat_vu
from pnp.points import Point, inner, length
from pnp.priors import Prior
from pnp.problem import Problem

FRACTION_OF_LIMIT = 0.95
Linear = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CondatVu:
    """The primal-dual splitting of Condat and Vu, whose theorem holds in a norm of its own.

    Parameters
    ----------
    step_size : tau; None takes 1.9/L where the fidelity is dual and 1/L where it is smooth, or less where the noise is so
        strong that the denoiser's range asks for it. It sets the strength of the prior, as gamma does in `PGD`.
    dual_step_size : sigma; None takes 0.95 of the largest admissible where the fidelity is dual, else half of it.
    relaxation : as in `DRS`.
    fidelity : "dual" needs the operator alone, no gradient; "smooth" takes the gradient step.
    box : whether the image is held in [0, 1] besides.
    """

    step_size: float | None = None
    dual_step_size: float | None = None
    relaxation: float | None = None
    fidelity: Literal["dual", "smooth"] = "dual"
    box: bool = False

    @property
    def needs(self) -> Needs:
        return Needs(frozenset({"conjugate_prox" if self.fidelity == "dual" else "gradient"}), Fraction(1, 2))

    def settle(self, problem: Problem, prior: Prior) -> CondatVu:
        relaxation = settled_relaxation("CondatVu", self.needs, self.relaxation, prior)
        tau, sigma, smoothness = self.step_size, self.dual_step_size, problem.smoothness.value
        if tau is None:
            usual = (2 * FRACTION_OF_LIMIT if self.fidelity == "dual" else 1.0) / smoothness if smoothness else 1.0
            tau = smallest(usual, largest_step_size(problem, prior, relaxation))
        if sigma is None:
            room = 1 / tau - self._smooth(problem) / 2
            share = FRACTION_OF_LIMIT if self.fidelity == "dual" else 0.5
            norm = self._squared_norm(problem)
            sigma = share * room / norm if norm and room > 0 else 1.0
        return replace(self, step_size=tau, dual_step_size=sigma, relaxation=relaxation)

    @property
    def tau(self) -> float:
        return settled(self.step_size)

    @property
    def sigma(self) -> float:
        return settled(self.dual_step_size)

    def denoiser_noise_level(self, problem: Problem, prior: Prior) -> float:
        return denoiser_level(problem, prior, self.tau, settled(self.relaxation))

    def guarantee(self, problem: Problem, prior: Prior) -> Guarantee:
        theorem = condat_vu(
            prior.certificate,
            self._smooth(problem),
            self._squared_norm(problem),
            step_size=self.tau,
            dual_step_size=self.sigma,
        )
        return grounded(theorem, problem, prior, existence=not self.box)

    def start(self, problem: Problem, image: Tensor) -> Point:
        return (image, *(torch.zeros_like(K(image)) for K, _, _ in self._dual(problem)))

    def apply(self, problem: Problem, denoise: Denoise, point: Point, *, accuracy: float) -> Applied:
        x, *duals = point
        tau, sigma = self.tau, self.sigma
        descent = problem.gradient(x) if self.fidelity == "smooth" else torch.zeros_like(x)
        for u, (_, adjoint, _) in zip(duals, self._dual(problem), strict=True):
            descent = descent + adjoint(u)
        moved, error = denoised(denoise, x - tau * descent, accuracy)
        ahead = 2 * moved - x
        duals = [prox(u + sigma * K(ahead)) for u, (K, _, prox) in zip(duals, self._dual(problem), strict=True)]
        size = math.sqrt(2 + 8 * tau * sigma * self._squared_norm(problem))  # of (e, 2 sigma K e) in the norm, at most
        return Applied((moved, *duals), moved, size * error)

    def estimate(self, problem: Problem, denoise: Denoise, point: Point) -> Tensor:
        return point[0]

    def norm(self, problem: Problem, difference: Point) -> Tensor:
        """sqrt(|x|^2 - 2 tau <Kx, u> + tau/sigma |u|^2): of tau P, so that without a g it is |x|."""
        x, *duals = difference
        if not duals:
            return length((x,))
        images = tuple(K(x) for K, _, _ in self._dual(problem))
        tau, squares = self.tau, inner((x,), (x,))
        squares = squares - 2 * tau * inner(images, tuple(duals))
        squares = squares + tau / self.sigma * inner(tuple(duals), tuple(duals))
        return squares.clamp(min=0).sqrt().to(x.dtype)

    def _dual(self, problem: Problem) -> Iterator[tuple[Linear, Linear, Linear]]:
        """K, its adjoint and prox_(sigma g*) of each g."""
        sigma = self.sigma
        if self.fidelity == "dual":
            fidelity, y = problem.fidelity, problem.measurement
            yield problem.physics.A, problem.physics.A_adjoint, lambda u: fidelity.conjugate_prox(u, y, sigma)
        if self.box:
            yield lambda x: x, lambda u: u, lambda u: u - sigma * (u / sigma).clamp(0, 1)

    def _smooth(self, problem: Problem) -> float:
        return problem.smoothness.value if self.fidelity == "smooth" else 0.0

    def _squared_norm(self, problem: Problem) -> float:
        """|K|^2 <= the sum over the g."""
        total = (problem.smoothness.value if self.fidelity == "dual" else 0.0) + (1.0 if self.box else 0.0)
        return math.nextafter(total, math.inf) if self.box else total
