"""A semismooth Newton augmented Lagrangian method on the dual [LiSunToh2018; ZhangZhangSunToh2020], for every program here.

With W = V - sigma A^T r and P = prox_(sigma penalty)(W), the inner problem is to minimize over r
    psi(r) = [<r, q> - f(q) - |q - z|^2/(2 tau)] - [penalty(P) + <A^T r, P> + |P - V|^2/(2 sigma)],
q the maximizer, whose gradient is q - A P; then V = P and z = q. Where f* is smooth, tau is infinite. Every inner solution
gives feasible variables, and r a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stablenet.convex.datafits import DualStep
from stablenet.convex.products import rough_norm
from stablenet.convex.program import Program, Prox
from stablenet.convex.solvers.protocol import Iterate
from stablenet.convex.solvers.systems import DIRECT, Derivative, solve_by_products, solve_direct

HALVINGS = 25
"""Of a step at most, in a line search."""


@dataclass(frozen=True)
class Newton:
    """Few outer steps, each solved by Newton's method with a line search.

    Parameters
    ----------
    tolerance : of the relative gap.
    iterations : outer steps at most, at least 1.
    inner : Newton steps at most in each of them.
    growth : of sigma from one outer step to the next, > 1.
    """

    tolerance: float = 1e-8
    iterations: int = 60
    inner: int = 40
    growth: float = 8.0
    needs: ClassVar[frozenset[str]] = frozenset()

    def iterate(self, program: Program, start: Tensor | None = None) -> Iterator[Iterate]:
        V = program.zeros() if start is None else start
        z = program.predict(V)
        r = _inside(program, program.datafit.gradient(z, program.y))
        sigma, growth, bound, best, stalled = _first_sigma(program), self.growth, -math.inf, math.inf, 0
        for _ in range(self.iterations):
            state, solved = _Inner(program, V, z, sigma, sigma * _share(program)).minimize(r, self.inner)
            r, found = state.r, state.prox.variables
            reached, dual = _bound(program, r, found)
            bound = max(bound, reached)
            iterate = Iterate(found, program.objective(found), bound, dual)
            yield iterate
            gap = iterate.relative_gap
            stalled, best = (stalled + 1 if gap > 0.9 * best else 0), min(best, gap)
            if gap <= self.tolerance or stalled >= 10:
                return
            if solved:
                V, z, sigma = found, state.fit.point, sigma * growth
            else:  # too far for one step: from where the last one was solved, less far
                sigma, growth = sigma / growth, max(1.5, math.sqrt(growth))


def _bound(program: Program, r: Tensor, V: Tensor) -> tuple[float, Tensor]:
    """The better of the bounds by the dual variable and by the gradient, where there is one, and what gives it."""
    duals = [program.datafit.into_domain(r, program.y)]
    if program.datafit.curvature is not None:
        duals.append(program.datafit.gradient(program.predict(V), program.y))
    bounds = [program.lower_bound(dual) for dual in duals]
    best = bounds.index(max(bounds))
    return bounds[best], duals[best]


@dataclass(frozen=True)
class _State:
    """psi at r, with U = A^T r."""

    r: Tensor
    U: Tensor
    value: float
    gradient: Tensor
    fit: DualStep
    prox: Prox


@dataclass(frozen=True)
class _Inner:
    program: Program
    V: Tensor
    z: Tensor
    sigma: float
    tau: float

    def at(self, r: Tensor, U: Tensor) -> _State | None:
        """None outside the domain."""
        p = self.program
        fit = p.datafit.dual_step(r, p.y, self.z, self.tau)
        if not math.isfinite(float(fit.value)):
            return None
        prox = p.prox(self.V - self.sigma * U, self.sigma)
        P = prox.variables
        penalty = p.penalty.weight * p.lengths(P).sum() + (U * P).sum() + (P - self.V).square().sum() / (2 * self.sigma)
        return _State(r, U, float(fit.value - penalty), fit.point - p.predict(P), fit, prox)

    def minimize(self, r: Tensor, steps: int) -> tuple[_State, bool]:
        """The last state, and whether its gradient is as small as this outer step asks for."""
        state = self.at(r, self.program.correlations(r))
        assert state is not None
        for _ in range(steps):
            error = float(torch.linalg.vector_norm(state.gradient))
            if error <= self.goal(state):
                return state, True
            following = self.search(state, self.direction(state, error))
            if following is None:
                return state, error <= 100 * self.goal(state)
            state = following
        return state, False

    def goal(self, state: _State) -> float:
        """A share of what V moved, as the method's theorem asks for, above rounding."""
        moved = float(torch.linalg.vector_norm(state.prox.variables - self.V))
        scale = 1 + float(torch.linalg.vector_norm(state.fit.point))
        share = 0.1 * moved / math.sqrt(self.sigma * self.program.datafit.weight)
        return max(1e-14 * scale, min(1e-3 * scale, share))

    def direction(self, state: _State, error: float) -> Tensor:
        derivative, g = Derivative.at(self.program, state.prox), -state.gradient
        slope = state.fit.slope.clamp_min(1e-10 * float(state.fit.slope.max()))
        if len(g) <= DIRECT:
            return solve_direct(derivative, slope, self.sigma, _gram(self.program), g)
        return solve_by_products(derivative, slope, self.sigma, g, goal=min(0.01 * error, error**1.5))

    def search(self, state: _State, direction: Tensor) -> _State | None:
        """Armijo's rule; where psi moves by less than its rounding, a smaller gradient is taken as progress."""
        descent = float((state.gradient * direction).sum())
        U = self.program.correlations(direction)
        t = 1.0
        for _ in range(HALVINGS):
            trial = self.at(state.r + t * direction, state.U + t * U)
            if trial is not None:
                if trial.value <= state.value + 1e-4 * t * descent:
                    return trial
                flat = abs(trial.value - state.value) <= 1e-13 * max(1.0, abs(state.value))
                if flat and float(trial.gradient.norm()) < 0.9 * float(state.gradient.norm()):
                    return trial
            t /= 2
        return None


def _gram(program: Program) -> Tensor:
    return program.X @ program.X.T


def _inside(program: Program, r: Tensor) -> Tensor:
    """Where f* is only finite inside its domain, a little inside."""
    return 0.9 * r if program.datafit.labels else r


def _share(program: Program) -> float:
    """tau / sigma: both in units of their space."""
    return float(torch.linalg.vector_norm(program.X)) ** 2 / len(program.X)


def _first_sigma(program: Program) -> float:
    """Of the order at which a proximal step moves A V by as much as f is away from its least value."""
    return 1 / (program.datafit.weight * rough_norm(program.X) ** 2)
