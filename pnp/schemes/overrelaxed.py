"""Over-relaxation: x+ = x + lambda (T x - x), 0 < lambda < 1/alpha [BauschkeCombettes2017, proposition 5.16]."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from torch import Tensor

from pnp.bounds import Refused
from pnp.guarantees import Guarantee, Nonincreasing
from pnp.points import Point, combine
from stablenet.rounding import down, up


@dataclass(frozen=True)
class Overrelaxed:
    """Longer steps: the map is (lambda alpha)-averaged, with the same fixed points.

    Parameters
    ----------
    factor : lambda in (0, 1/alpha), alpha the averagedness of T.
    """

    factor: float

    def guarantee(self, base: Guarantee) -> Guarantee:
        alpha = base.averagedness
        if alpha is None or not (math.isfinite(self.factor) and 0 < Fraction(self.factor) * Fraction(alpha) < 1):
            known = "unknown" if alpha is None else f"<= {up(alpha)}"
            end = "" if not alpha else f", so factor must lie in (0, {down(1 / Fraction(alpha))})"
            raise Refused(
                f"Overrelaxed with factor={self.factor:g} is not covered: the averagedness of the iteration map is {known}"
                f"{end}."
            )
        statement = f"{base.statement}; over-relaxed by {self.factor:g} < {down(1 / Fraction(alpha))}"
        return replace(base, statement=statement, watch=Nonincreasing(self.factor))

    def init(self, point: Point, guarantee: Guarantee) -> None:
        return None

    def next(self, k: int, point: Point, image: Point, residual: Tensor, memory: None) -> tuple[Point, None]:
        return combine(1 - self.factor, point, self.factor, image), None
