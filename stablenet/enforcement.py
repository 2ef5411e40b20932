"""Adaptive spectral-norm enforcement: keep z = h L |A|^2 within what the tableau allows, by one of three policies.

Source: substeps is the scheme of [Sherry2024], section on adaptive spectral norms; step and rescale are the two
policies of practice (docs/theorems.md, E1). Nothing but `enforce` changes a weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, cast, runtime_checkable

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True)
class Schedule:
    """What a policy decides: `steps` steps of length `step_size`, and a factor on the weight (1 leaves it alone)."""

    steps: int
    step_size: float
    weight_factor: float = 1.0


class Policy(Protocol):
    """From the smoothness L |A|^2 of the field and the largest z allowed to a schedule, for a fixed time T."""

    reads_norm: ClassVar[bool]
    """Whether steps and their length depend on the norm; else the weight does."""

    def schedule(self, field_smoothness: float, z_max: float, time: float) -> Schedule: ...

    def require(self, field_smoothness: float, z_max: float, time: float) -> None:
        """Raise ValueError where the schedule cannot keep z <= z_max."""
        ...


@dataclass(frozen=True)
class Substeps:
    """The time stays, the number of steps follows the norm: n = max(1, ceil(T L |A|^2 / z_max)). [Sherry2024]

    Never more than `max_steps`: where more would be needed `require` raises ValueError, and z exceeds z_max.
    """

    reads_norm: ClassVar[bool] = True
    max_steps: int = 64

    def __post_init__(self) -> None:
        _at_least_one(max_steps=self.max_steps)

    def schedule(self, field_smoothness: float, z_max: float, time: float) -> Schedule:
        needed = time * field_smoothness / z_max
        steps = self.max_steps if needed > self.max_steps else max(1, math.ceil(needed))
        return Schedule(steps, time / steps)

    def require(self, field_smoothness: float, z_max: float, time: float) -> None:
        needed = time * field_smoothness / z_max
        if needed > self.max_steps:
            raise ValueError(
                f"a field of smoothness {field_smoothness:.4g} over time {time:.4g} needs {needed:.0f} steps, more than "
                f"max_steps={self.max_steps}: lower the learning rate, shorten the time or raise max_steps"
            )


@dataclass(frozen=True)
class Step:
    """The number of steps stays, their length follows the norm: h = min(T / n, z_max / (L |A|^2))."""

    reads_norm: ClassVar[bool] = True
    steps: int = 1

    def __post_init__(self) -> None:
        _at_least_one(steps=self.steps)

    def schedule(self, field_smoothness: float, z_max: float, time: float) -> Schedule:
        longest = z_max / field_smoothness if field_smoothness > 0 else math.inf
        return Schedule(self.steps, min(time / self.steps, longest))

    def require(self, field_smoothness: float, z_max: float, time: float) -> None:
        """Some step is always short enough."""


@dataclass(frozen=True)
class Rescale:
    """Steps and their length stay, the weight follows: A <- A min(1, sqrt(z_max / (h L |A|^2)))."""

    reads_norm: ClassVar[bool] = False
    steps: int = 1

    def __post_init__(self) -> None:
        _at_least_one(steps=self.steps)

    def schedule(self, field_smoothness: float, z_max: float, time: float) -> Schedule:
        step_size = time / self.steps
        z = step_size * field_smoothness
        return Schedule(self.steps, step_size, 1.0 if z <= z_max else math.sqrt(z_max / z) * (1 - 1e-6))

    def require(self, field_smoothness: float, z_max: float, time: float) -> None:
        """Some weight is always small enough."""


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


@runtime_checkable
class Enforced(Protocol):
    """A module that keeps a constraint on its weights."""

    def enforce(self, *, certified: bool = False) -> None: ...

    def constrained_parameters(self) -> tuple[nn.Parameter, ...]:
        """What `enforce` keeps within bounds."""
        ...


def enforce(model: nn.Module, *, certified: bool = False) -> None:
    """Bring every block of a model within its constraint: after each optimizer step, and `certified` before saving.

    Nothing else changes a weight: not train(), eval() or load_state_dict(). After an optimizer step, in training mode, the
    norm is followed from below by one warm power iteration a block (more while it moves). With `certified`, or in evaluation
    mode, it is the certified bound, and `certify` then gives what the policies promise.

    Raises
    ------
    ValueError : the weights hold NaN or infinity, or a policy cannot meet its cap.
    """
    for module in model.modules():
        if hasattr(type(module), "enforce"):  # isinstance(module, Enforced), at a tenth of the time
            cast(Enforced, module).enforce(certified=certified)


def attach(optimizer: torch.optim.Optimizer, model: nn.Module) -> RemovableHandle:
    """Make every `optimizer.step()` end with `enforce(model)`; returns a handle whose `remove()` undoes it."""
    return optimizer.register_step_post_hook(lambda *_: enforce(model))
