"""Halpern's iteration of the nonexpansive part of T, optimal among worst cases [Halpern1967; Lieder2021]."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from pnp.bounds import Refused
from pnp.guarantees import Averaged, Guarantee
from pnp.points import Point, combine


@dataclass(frozen=True)
class Anchor:
    """x_0, and alpha."""

    start: Point
    averagedness: float


@dataclass(frozen=True)
class Halpern:
    """x_(k+1) = x_0/(k+2) + (k+1)/(k+2) N x_k with N = (1 - 1/alpha) I + T/alpha: r_k <= 2 alpha d0/(k+1).

    The rate needs d0, the distance to a fixed point, so what is watched is that no two iterates move apart. It converges to
    the fixed point nearest to x_0.
    """

    def guarantee(self, base: Guarantee) -> Guarantee:
        alpha = base.averagedness
        if not alpha:
            raise Refused("Halpern is not covered: it needs the averagedness of the iteration map, which is unknown.")
        return replace(
            base,
            source=f"{base.source}; Halpern1967; Lieder2021",
            statement=f"{base.statement}; Halpern's anchor at the start",
            watch=Averaged(alpha, rate=2 * alpha),
        )

    def init(self, point: Point, guarantee: Guarantee) -> Anchor:
        assert guarantee.averagedness is not None
        return Anchor(point, guarantee.averagedness)

    def next(self, k: int, point: Point, image: Point, residual: Tensor, memory: Anchor) -> tuple[Point, Anchor]:
        weight = 1 / memory.averagedness
        nonexpansive = combine(1 - weight, point, weight, image)
        return combine(1 / (k + 2), memory.start, (k + 1) / (k + 2), nonexpansive), memory
