"""Accelerated proximal gradient steps with backtracking and restart [BeckTeboulle2009; ODonoghueCandes2015]."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stablenet.convex.products import rough_norm
from stablenet.convex.program import Program
from stablenet.convex.solvers.protocol import Iterate


@dataclass(frozen=True)
class Fista:
    """x+ = prox(y - grad f(y)/L), y = x+ + momentum (x+ - x); momentum is dropped where it points uphill.

    Parameters
    ----------
    tolerance : of the relative gap.
    iterations : at most, at least 1.
    every : a bound is computed every so many iterations, which costs as much as a step.
    growth : of L where the quadratic is no upper bound, > 1.
    """

    tolerance: float = 1e-6
    iterations: int = 20_000
    every: int = 20
    growth: float = 2.0
    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def iterate(self, program: Program, start: Tensor | None = None) -> Iterator[Iterate]:
        x = program.zeros() if start is None else start
        y, t, bound = x, 1.0, -torch.inf
        curvature = _first_curvature(program)
        for k in range(1, self.iterations + 1):
            new, curvature = _step(program, y, curvature, self.growth)
            if float(((y - new) * (new - x)).sum()) > 0:
                y, t = new, 1.0
            else:
                following = (1 + (1 + 4 * t * t) ** 0.5) / 2
                y, t = new + (t - 1) / following * (new - x), following
            x = new
            if k % self.every == 0 or k == self.iterations:
                gradient = program.datafit.gradient(program.predict(x), program.y)
                bound = max(bound, program.lower_bound(gradient))
                iterate = Iterate(x, program.objective(x), bound, gradient)
                yield iterate
                if iterate.relative_gap <= self.tolerance:
                    return


def _step(program: Program, y: Tensor, curvature: float, growth: float) -> tuple[Tensor, float]:
    """A proximal gradient step whose quadratic is an upper bound, and its L, which shrinks a little first."""
    Z = program.predict(y)
    value, gradient = program.datafit.value(Z, program.y), program.datafit.gradient(Z, program.y)
    slope, curvature = program.correlations(gradient), 0.9 * curvature
    while True:
        new = program.prox(y - slope / curvature, 1 / curvature).variables
        moved = new - y
        model = value + (slope * moved).sum() + curvature / 2 * moved.square().sum()
        reached = program.datafit.value(program.predict(new), program.y)
        if float(reached) <= float(model) + 1e-14 * abs(float(value)):
            return new, curvature
        curvature *= growth


def _first_curvature(program: Program) -> float:
    """A first guess of L: that of the largest gate, f's curvature times |X|^2/4."""
    assert program.datafit.curvature is not None
    return program.datafit.curvature * rough_norm(program.X) ** 2 / 4
