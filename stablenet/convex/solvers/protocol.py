"""What a solver is: a frozen value that says what it needs of a program, and yields iterates with a proved bound each.

Source: the needs of skglm's solvers, said before the first iteration instead of found out in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from stablenet.convex.program import Optimum, Program


@dataclass(frozen=True)
class Iterate:
    """Feasible variables with their objective, and the best lower bound so far, over the program's gates.

    dual : R (n, outputs), a residual that gives about that bound.
    """

    variables: Tensor
    objective: float
    lower_bound: float
    dual: Tensor

    @property
    def relative_gap(self) -> float:
        """(objective - lower_bound) / |objective|, at least 0."""
        return max(self.objective - self.lower_bound, 0.0) / max(abs(self.objective), 1e-300)


class Solver(Protocol):
    """A method for convex programs.

    needs : what a program must have: "gradient" (a datafit with a Lipschitz gradient), "unconstrained" (gated networks),
        "squared" (the squared datafit), "unbounded" (no bound of the sum), "cells" (complete gates).
    tolerance : the relative gap at which it stops.
    """

    needs: ClassVar[frozenset[str]]

    @property
    def tolerance(self) -> float: ...

    def iterate(self, program: Program, start: Tensor | None = None) -> Iterator[Iterate]:
        """Iterates from variables of the program's shape, or from 0; ends at the tolerance or where nothing improves."""
        ...


MEETS: dict[str, tuple[Callable[[Program], bool], str]] = {
    "gradient": (lambda p: p.datafit.curvature is not None, "a datafit with a Lipschitz gradient: take Newton()"),
    "unconstrained": (lambda p: not p.cones, "a gated network, cones=False: take Newton() or Columns()"),
    "squared": (lambda p: type(p.datafit).__name__ == "Squared", "the squared datafit: take Newton()"),
    "unbounded": (lambda p: p.penalty.most is None, "a penalty without most: take Newton()"),
    "cells": (lambda p: p.gates.complete, "all cells, gates.enumerate(X): take Newton() for a sample"),
}


def require(solver: Solver, program: Program) -> None:
    """Raise ValueError for the first need of the solver that the program does not meet."""
    for need in sorted(solver.needs):
        met, remedy = MEETS[need]
        if not met(program):
            raise ValueError(f"{type(solver).__name__} needs {remedy}")


def run(
    program: Program, solver: Solver, *, start: Tensor | None = None, progress: Callable[[Iterate], None] | None = None
) -> Optimum:
    """The best iterate of a solver, with its certificate.

    Parameters
    ----------
    start : variables of the program's shape to begin with.
    progress : called with every iterate.

    Raises
    ------
    ValueError : the program does not meet the solver's needs, or the start has another shape.
    """
    require(solver, program)
    if start is not None and tuple(start.shape) != program.shape:
        raise ValueError(f"the start has shape {tuple(start.shape)}, the program's variables have {program.shape}")
    best, bound = None, -math.inf
    for iterate in solver.iterate(program, start):
        if progress is not None:
            progress(iterate)
        if best is None or iterate.objective <= best.objective:
            best = iterate
        bound = max(bound, iterate.lower_bound)
    if best is None:
        raise ValueError(f"{solver!r} made no step: ask for at least one iteration")
    return Optimum.of(program, best.variables, best.objective, bound)


def path(program: Program, weights: Sequence[float], solver: Solver) -> Iterator[tuple[float, Optimum]]:
    """(beta, optimum) for every weight, each begun at the one before: in descending order that is fastest."""
    start = None
    for weight in weights:
        optimum = run(program.with_weight(weight), solver, start=start)
        start = optimum.variables
        yield weight, optimum
