"""The one training loop, on lightning-fabric: step, enforce, average, validate, checkpoint.

Source: enforcement after each optimizer step is [Sherry2024]; the exponential moving average of the weights is
certified like any other weights, in evaluation mode.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stablenet.enforcement import Enforced, enforce
from stablenet.following import Following
from stablenet.training.checkpoint import load_checkpoint, save_checkpoint
from stablenet.training.optimizers import OPTIMIZERS, build

Loss = Callable[[nn.Module, torch.Generator], Tensor]
Validation = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class Schedule:
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
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("steps", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "kernel_rate", "gradient_clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        if not 0 <= self.evenness <= 0.5:
            raise ValueError(f"evenness must lie in [0, 0.5], got {self.evenness}")
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay must lie in [0, 1), got {self.average_decay}")

    def rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return self.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))


@dataclass(frozen=True)
class Record:
    """What one pass of the loop tells: validation is empty but at the steps that validate."""

    step: int
    loss: float
    learning_rate: float
    validation: dict[str, float]


def fit(
    fabric: Fabric,
    model: nn.Module,
    loss: Loss,
    schedule: Schedule,
    *,
    seed: int,
    validation: Validation,
    checkpoint: Path,
    recipe: str,
    shared_batches: bool = False,
    half: bool = False,
) -> Iterator[tuple[Record, nn.Module]]:
    """Train `model`, yielding (record, averaged model) a step; resumes from `checkpoint` when it exists.

    Where the record validates, the model beside it is a copy of the average within its certified constraint.

    The batch of a step depends on (seed, step, rank) alone, so that a resumed run repeats an uninterrupted one; with
    `shared_batches` not on the rank either: the loss then takes its device's share of one batch. `half` lets the optimizer
    orthogonalize in bfloat16.

    Raises
    ------
    ValueError : the checkpoint is another recipe's, or the loss is NaN (the last checkpoint is left as it was).
    """
    groups = groups_of(model, schedule.kernel_rate)
    optimizer = build(schedule.optimizer, groups, schedule.learning_rate, half=half, evenness=schedule.evenness)
    following = Following(model.train())
    enforce(model)
    average = copy.deepcopy(model).to(fabric.device).requires_grad_(False).eval()
    done = load_checkpoint(checkpoint, model, average, following, optimizer, recipe) if checkpoint.exists() else 0
    wrapped, optimizer = fabric.setup(model.to(fabric.device), optimizer)
    for step in range(done, schedule.steps):
        rank = () if shared_batches else (fabric.global_rank,)
        generator = torch.Generator().manual_seed(_mixed(seed, step, *rank))
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step) * group["share"]
        value = loss(wrapped, generator)
        optimizer.zero_grad()
        fabric.backward(value)
        fabric.clip_gradients(wrapped, optimizer, max_norm=schedule.gradient_clip, error_if_nonfinite=False)
        if not math.isfinite(float(value.detach())):
            raise ValueError(f"the loss is {float(value.detach())} at step {step}: lower the learning rate and resume")
        optimizer.step()
        enforce(model)
        _average(average, model, min(schedule.average_decay, (1 + step) / (10 + step)))
        last = step + 1 == schedule.steps
        metrics, shown = {}, average
        if last or (step + 1) % schedule.validate_every == 0:
            shown = certified(average)
            metrics = validation(shown)
        if fabric.is_global_zero and (last or (step + 1) % schedule.checkpoint_every == 0):
            save_checkpoint(checkpoint, step + 1, model, average, following, fabric_state(optimizer), recipe)
        yield Record(step + 1, float(value.detach()), schedule.rate(step), metrics), shown


def certified(average: nn.Module) -> nn.Module:
    """A copy within its certified constraint: the running average goes on as if nobody had looked."""
    shown = copy.deepcopy(average)
    enforce(shown, certified=True)
    return shown


def groups_of(model: nn.Module, kernel_rate: float) -> list[dict]:
    """Kernels live on a sphere that enforcement sets; what they are measured against moves faster."""
    blocks = [module for module in model.modules() if isinstance(module, Enforced)]
    constrained = {id(parameter) for block in blocks for parameter in block.constrained_parameters()}
    kernels = [p for p in model.parameters() if id(p) in constrained]
    others = [p for p in model.parameters() if id(p) not in constrained]
    groups = [{"params": kernels, "share": kernel_rate, "orthogonal": True}, {"params": others, "share": 1.0}]
    return [group for group in groups if group["params"]]


def _mixed(*numbers: int) -> int:
    """One well-mixed 63-bit seed from several small numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def fabric_state(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The plain optimizer inside fabric's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for old, new in zip(average.parameters(), model.parameters(), strict=True):
        old.lerp_(new.to(old.dtype), 1 - decay)
    for old, new in zip(average.buffers(), model.buffers(), strict=True):
        old.copy_(new)
