"""How long, how fast and at what pace a network is trained.

Source: linear warm-up, then a cosine decay to 1 % of the learning rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stablenet.training.optimizers import OPTIMIZERS

PACE = ("validate_every", "checkpoint_every", "checkpoint_minutes")
"""What decides when something is looked at or written, and no weight."""


@dataclass(frozen=True)
class LearningSchedule:
    """Steps, learning rate (linear warm-up, cosine decay to 1 % of it), averaging and the pace of everything else."""

    steps: int
    learning_rate: float = 2e-2
    kernel_rate: float = 0.3
    """The learning rate of the linear maps' weights, as a share of the others' (thresholds, slopes, anchors)."""
    optimizer: str = "adam"
    """adam, or orthogonalized: momentum with steps of one spectral norm for the linear maps' weights, Adam for the rest."""
    evenness: float = 0.0
    """With orthogonalized: the share by which each step pulls a map's singular values toward each other."""
    warmup_steps: int = 200
    average_decay: float = 0.999
    validate_every: int = 1000
    checkpoint_every: int = 500
    checkpoint_minutes: float = 5.0
    """A checkpoint is written after so many minutes too, however few the steps."""
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("steps", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "kernel_rate", "gradient_clip", "checkpoint_minutes"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        if not 0 <= self.evenness <= 0.5:
            raise ValueError(f"evenness must lie in [0, 0.5], got {self.evenness}")
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay must lie in [0, 1), got {self.average_decay}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return self.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))

    def validates(self, step: int) -> bool:
        """Whether the network is measured once `step` steps are done."""
        return step == self.steps or (step > 0 and step % self.validate_every == 0)

    def saves(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint is due once `step` steps are done, `seconds` after the last one."""
        return step == self.steps or step % self.checkpoint_every == 0 or seconds >= 60 * self.checkpoint_minutes
