"""Adaptive spectral-norm enforcement: keep z = h L |A|^2 within what the tableau allows, by one of three policies.

Source: substeps is the scheme of [Sherry2024], section on adaptive spectral norms; step and rescale are the two
policies of practice (docs/theorems.md, E1). While training, the norm is a warm power iteration (a lower bound); in
evaluation it is the certified upper bound of `stablenet.spectral`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn


@dataclass(frozen=True)
class Schedule:
    """What a policy decides: `steps` steps of length `step_size`, and a factor on the weight (1 leaves it alone)."""

    steps: int
    step_size: float
    weight_factor: float = 1.0


class Policy(Protocol):
    """From the smoothness L |A|^2 of the field and the largest z allowed to a schedule, for a fixed time T."""

    def schedule(self, field_smoothness: float, z_max: float, time: float) -> Schedule: ...


@dataclass(frozen=True)
class Substeps:
    """The time stays, the number of steps follows the norm: n = max(1, ceil(T L |A|^2 / z_max)). [Sherry2024]

    Raises ValueError from `schedule` when more than `max_steps` would be needed.
    """

    max_steps: int = 64

    def __post_init__(self) -> None:
        _at_least_one(max_steps=self.max_steps)

    def schedule(self, field_smoothness: float, z_max: float, time: float) -> Schedule:
        steps = max(1, math.ceil(time * field_smoothness / z_max))
        if steps > self.max_steps:
            raise ValueError(
                f"a field of smoothness {field_smoothness:.4g} over time {time:.4g} needs {steps} steps, more than "
                f"max_steps={self.max_steps}: lower the learning rate, shorten the time or raise max_steps"
            )
        return Schedule(steps, time / steps)


@dataclass(frozen=True)
class Step:
    """The number of steps stays, their length follows the norm: h = min(T / n, z_max / (L |A|^2))."""

    steps: int = 1

    def __post_init__(self) -> None:
        _at_least_one(steps=self.steps)

    def schedule(self, field_smoothness: float, z_max: float, time: float) -> Schedule:
        longest = z_max / field_smoothness if field_smoothness > 0 else math.inf
        return Schedule(self.steps, min(time / self.steps, longest))


@dataclass(frozen=True)
class Rescale:
    """Steps and their length stay, the weight follows: A <- A min(1, sqrt(z_max / (h L |A|^2)))."""

    steps: int = 1

    def __post_init__(self) -> None:
        _at_least_one(steps=self.steps)

    def schedule(self, field_smoothness: float, z_max: float, time: float) -> Schedule:
        step_size = time / self.steps
        z = step_size * field_smoothness
        return Schedule(self.steps, step_size, 1.0 if z <= z_max else math.sqrt(z_max / z) * (1 - 1e-6))


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


@runtime_checkable
class Enforced(Protocol):
    """A module that keeps a constraint on its weights."""

    def enforce(self) -> None: ...


def enforce(model: nn.Module) -> None:
    """Bring every block of a model back within its constraint; call it after each optimizer step.

    In training mode this is one warm power iteration a block (more while the norm moves); in evaluation mode the
    certified bound.

    Raises
    ------
    ValueError : the weights hold NaN or infinity, or a policy cannot meet its cap.
    """
    for module in model.modules():
        if hasattr(type(module), "enforce"):  # isinstance(module, Enforced), at a tenth of the time
            module.enforce()


def attach(optimizer: torch.optim.Optimizer, model: nn.Module):
    """Make every `optimizer.step()` end with `enforce(model)`; returns a handle whose `remove()` undoes it."""
    return optimizer.register_step_post_hook(lambda *_: enforce(model))
