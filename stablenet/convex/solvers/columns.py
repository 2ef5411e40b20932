"""Column generation: a few gates at a time, until no other gate has a column that could lower the objective.

Source: the dual constraint max over cells of |P_K(X^T D R)| <= beta of [PilanciErgen2020]; pricing all gates is the program's
lower bound (docs/theorems.md, X2), so that a gap of complete gates is one over all networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stablenet.convex.program import Program
from stablenet.convex.solvers.newton import Newton
from stablenet.convex.solvers.protocol import Iterate


@dataclass(frozen=True)
class Columns:
    """Newton's method on the gates at work; those that violate the dual constraint most come in.

    Parameters
    ----------
    tolerance : of the relative gap over all the program's gates.
    at_once : gates that come in together, at least 1.
    rounds : at most, at least 1.
    """

    tolerance: float = 1e-8
    at_once: int = 16
    rounds: int = 200
    needs: ClassVar[frozenset[str]] = frozenset()

    def iterate(self, program: Program, start: Tensor | None = None) -> Iterator[Iterate]:
        V = program.zeros() if start is None else start
        R = program.datafit.gradient(program.predict(V), program.y)
        working = program.lengths(V).amax((0, 2)) > 0
        working |= self.entering(program, R, working)
        bound, newton = -torch.inf, Newton(max(self.tolerance / 4, 1e-14))
        for _ in range(self.rounds):
            index = torch.nonzero(working)[:, 0]
            part = program.at(index)
            found = min(newton.iterate(part, V[:, index]), key=lambda i: i.objective - i.lower_bound)
            V = program.zeros()
            V[:, index] = found.variables
            bound = max(bound, program.lower_bound(found.dual))
            iterate = Iterate(V, program.objective(V), bound, found.dual)
            yield iterate
            more = self.entering(program, found.dual, working)
            if iterate.relative_gap <= self.tolerance or not bool(more.any()):
                return
            working |= more

    def entering(self, program: Program, R: Tensor, working: Tensor) -> Tensor:
        """Those of the other gates whose columns violate the constraint most, or at the beginning the best; (gates,) bool.

        Under a bound of the sum the constraint is that of the gates at work.
        """
        begun = bool(working.any())
        level = program.penalty.weight if begun else -1.0
        polars = program.polars(R, most=max(level, 0.0)).amax((0, 2))
        if begun and program.penalty.most is not None:
            level = max(level, float(polars[working].max()))
        polars[working] = -1.0
        chosen = torch.topk(polars, min(self.at_once, len(polars))).indices
        more = torch.zeros_like(working)
        more[chosen] = polars[chosen] > level
        return more
