"""The one training loop, on lightning-fabric: step, enforce, average, validate, checkpoint.

Source: enforcement after each optimizer step is [Sherry2024]; the exponential moving average of the weights is
certified like any other weights, in evaluation mode.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from stablenet.enforcement import Enforced, enforce
from stablenet.files import lock, sweep
from stablenet.following import Following
from stablenet.training.checkpoint import Header, State, read, read_header, write_atomically
from stablenet.training.fingerprint import Fingerprint
from stablenet.training.optimizers import build
from stablenet.training.recipe import Recipe, conflicts

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Objective = Callable[[nn.Module, torch.Generator], Tensor]
Validation = Callable[[nn.Module], dict[str, float]]
CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Task:
    """What is trained, on what, and where to.

    objective : the loss of (network, generator of the batch). validation : scores of the averaged network.
    data : the fingerprint of the training images. folder : of the checkpoint.
    shared_batches : every device draws the same batch, and `objective` takes its share of it. half : the optimizer
    orthogonalizes in bfloat16.
    """

    model: nn.Module
    objective: Objective
    validation: Validation
    recipe: Recipe
    data: Fingerprint
    folder: Path
    shared_batches: bool = False
    half: bool = False


@dataclass(frozen=True)
class StepReport:
    """What one pass of the loop tells: validation is empty but at the steps that validate.

    mean_loss : since the last validation. learning_rates : (from step, learning rate) of each part of the run.
    """

    step: int
    loss: float
    learning_rate: float
    validation: dict[str, float]
    mean_loss: float
    learning_rates: tuple[tuple[int, float], ...]


def fit(fabric: Fabric, task: Task) -> Iterator[tuple[StepReport, nn.Module]]:
    """Train, yielding (report, averaged model) a step; resumes from the checkpoint in the folder when there is one.

    Where the report validates, the model beside it is a copy of the average within its certified constraint. A run that
    resumes where it validated, its end above all, does that again: it may have been killed before anyone saw it.

    The batch of a step depends on (seed, step, rank) alone, so that a resumed run repeats an uninterrupted one.

    Raises
    ------
    ValueError : the folder is in use, its checkpoint is of another recipe or of other images, or the loss is NaN (the last
        checkpoint is left as it was).
    OSError : a checkpoint could not be written; the one before is kept.
    """
    with _held(fabric, task.folder):
        run = _Run(fabric, task)
        schedule = task.recipe.schedule
        if schedule.validates(run.step):
            yield run.report()
        while run.step < schedule.steps:
            run.advance()
            report = run.report()
            if fabric.is_global_zero and schedule.saves(run.step, monotonic() - run.saved):
                run.save()
            yield report


@contextmanager
def _held(fabric: Fabric, folder: Path) -> Iterator[None]:
    """The folder for this run alone, without what killed runs left."""
    if not fabric.is_global_zero:
        yield
        return
    with lock(folder):
        sweep(folder)
        yield


class _Run:
    """A run under way: `step` steps are done."""

    def __init__(self, fabric: Fabric, task: Task) -> None:
        self.fabric, self.task, self.schedule = fabric, task, task.recipe.schedule
        model, schedule = task.model.train(), self.schedule
        groups = groups_of(model, schedule.kernel_rate)
        optimizer = build(schedule.optimizer, groups, schedule.learning_rate, half=task.half, evenness=schedule.evenness)
        following = Following(model)
        enforce(model)
        average = copy.deepcopy(model).to(fabric.device).requires_grad_(False).eval()
        self.state = State(model, average, following, optimizer)
        self.header = Header(0, task.recipe.to_json(), task.data, ((0, schedule.learning_rate),))
        if (task.folder / CHECKPOINT).exists():
            self._resume(task.folder / CHECKPOINT)
        self.wrapped, self.optimizer = fabric.setup(model.to(fabric.device), optimizer)
        self.saved, self.kept = monotonic(), self.header.step

    @property
    def step(self) -> int:
        return self.header.step

    def _resume(self, path: Path) -> None:
        header, recipe = read_header(path), self.task.recipe
        try:
            theirs = recipe.from_json(header.recipe)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path} is of a training of another kind: use another output") from None
        different = conflicts(recipe, theirs)
        if different:
            raise ValueError(f"{path} was written under another recipe (different: {', '.join(different)}): use another output")
        if header.data is not None and not header.data.matches(self.task.data):
            raise ValueError(f"{path} was trained on {header.data}, not on {self.task.data}: give those, or use another output")
        rates = header.learning_rates or ((0, theirs.schedule.learning_rate),)
        if rates[-1][1] != self.schedule.learning_rate:
            rates = (*(part for part in rates if part[0] < header.step), (header.step, self.schedule.learning_rate))
        self.state.restore(read(path)[0])
        self.header = Header(header.step, recipe.to_json(), self.task.data, rates, header.losses)

    def advance(self) -> None:
        """One step: batch, gradient, optimizer, constraint, average."""
        step, schedule, model = self.step, self.schedule, self.task.model
        rank = () if self.task.shared_batches else (self.fabric.global_rank,)
        generator = torch.Generator().manual_seed(mixed(self.task.recipe.seed, step, *rank))
        for group in self.optimizer.param_groups:
            group["lr"] = schedule.rate(step) * group["share"]
        loss = self.task.objective(self.wrapped, generator)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=schedule.gradient_clip, error_if_nonfinite=False)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(
                f"the loss is {value} at step {step}: resume with a lower --schedule.learning-rate than "
                f"{schedule.learning_rate:g}; {self._kept()}"
            )
        self.optimizer.step()
        enforce(model)
        _average(self.state.average, model, min(schedule.average_decay, (1 + step) / (10 + step)))
        total, count, _ = (0.0, 0, value) if schedule.validates(step) else self.header.losses
        self.header = replace(self.header, step=step + 1, losses=(total + value, count + 1, value))

    def report(self) -> tuple[StepReport, nn.Module]:
        """What the last step brought, and the average: where it is validated, within its certified constraint."""
        (total, count, last), shown, scores = self.header.losses, self.state.average, {}
        if self.schedule.validates(self.step):
            shown = copy.deepcopy(shown)  # the running average goes on as if nobody had looked
            enforce(shown, certified=True)
            scores = self.task.validation(shown)
        rate = self.schedule.rate(max(0, self.step - 1))
        return StepReport(self.step, last, rate, scores, total / max(1, count), self.header.learning_rates), shown

    def save(self) -> None:
        """Write the checkpoint of the steps done so far."""
        try:
            write_atomically(self.task.folder / CHECKPOINT, self.state.tensors(), self.header.to_metadata())
        except OSError as error:
            raise OSError(f"no checkpoint of step {self.step} could be written ({error}); {self._kept()}") from None
        self.saved, self.kept = monotonic(), self.step

    def _kept(self) -> str:
        return f"the checkpoint of step {self.kept} is kept" if self.kept else "there is no checkpoint yet"


def groups_of(model: nn.Module, kernel_rate: float) -> list[dict[str, Any]]:
    """Kernels live on a sphere that enforcement sets; what they are measured against moves faster."""
    blocks = [module for module in model.modules() if isinstance(module, Enforced)]
    constrained = {id(parameter) for block in blocks for parameter in block.constrained_parameters()}
    kernels = [p for p in model.parameters() if id(p) in constrained]
    others = [p for p in model.parameters() if id(p) not in constrained]
    groups = [{"params": kernels, "share": kernel_rate, "orthogonal": True}, {"params": others, "share": 1.0}]
    return [group for group in groups if group["params"]]


def mixed(*numbers: int) -> int:
    """One well-mixed 63-bit seed from several small numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for old, new in zip(average.parameters(), model.parameters(), strict=True):
        old.lerp_(new.to(old.dtype), 1 - decay)
    for kept, buffer in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(buffer)
