"""Krasnoselskii-Mann: x+ = T x, whose residual never increases [BauschkeCombettes2017, theorem 5.15]."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from pnp.guarantees import EnergyDescends, Guarantee, Nonincreasing
from pnp.points import Point


@dataclass(frozen=True)
class Plain:
    """The iteration as it stands: r_k^2 <= alpha/(1 - alpha) d0^2/(k + 1), or, where it descends on an energy, that law."""

    def guarantee(self, base: Guarantee) -> Guarantee:
        return base if isinstance(base.watch, EnergyDescends) else replace(base, watch=Nonincreasing())

    def init(self, point: Point, guarantee: Guarantee) -> None:
        return None

    def next(self, k: int, point: Point, image: Point, residual: Tensor, memory: None) -> tuple[Point, None]:
        return image, None
