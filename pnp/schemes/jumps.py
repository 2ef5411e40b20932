"""Jumps of a scheme where an energy decides: taken if F is as low as a step must bring it, in the box, and not too long.

Source: docs/theorems.md, P10.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pnp.guarantees import EnergyDescends
from pnp.points import Point, length, subtract

LENGTH = 100.0
"""The longest jump, in units of |x - T x|."""


def refusals(jumped: Tensor, energy: Tensor, before: Tensor | None, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Which images' points under evaluation F refuses, and how low it must be next, both (batch,).

    jumped : which points are jumps. before : how low F must be there, None at the first point. allowed : at T of this point.
    """
    if before is None:
        return jumped, allowed
    refused = jumped & ~(energy <= before)
    return refused, torch.where(refused, before, allowed)


def landing(target: Point, point: Point, residual: Tensor, law: EnergyDescends) -> tuple[Point, Tensor]:
    """Where a jump toward `target` lands, in the box if F is infinite outside, and whether it is short enough, (batch,)."""
    if law.box:
        target = tuple(t.clamp(0, 1) for t in target)
    return target, length(subtract(target, point)) <= LENGTH * residual
