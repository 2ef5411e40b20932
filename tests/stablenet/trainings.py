"""Small trainings that every test of training shares: recipes by entry, images from formulas, alike in every process."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stablenet.images.labeled import LabeledImages
from stablenet.networks.architectures import ClassifierShape, DenoiserArchitecture, GuidedShape, RidgeArchitecture
from stablenet.training.checkpoint import read
from stablenet.training.denoiser import train
from stablenet.training.recipe import SCHEDULE, ClassifierRecipe, DenoiserRecipe, GuidedRecipe, RidgeRecipe
from stablenet.training.schedule import LearningSchedule

STEPS = 12


class Waves(Dataset):
    """Smooth images from a formula: the same in every process."""

    def __init__(self, count: int = 3, period: int = 3) -> None:
        self.count, self.period = count, period

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(20.0), indexing="ij")
        return (0.5 + 0.4 * torch.sin(rows / (2 + index)) * torch.cos(columns / self.period))[None]


def composed(kind: type, architecture: type, values: dict[str, Any]) -> Any:
    """A recipe from entries of its own, of its architecture and, after "schedule_", of its schedule."""
    names = {f.name for f in fields(architecture)}
    own = {name: value for name, value in values.items() if name not in names and not name.startswith("schedule_")}
    pace = {name.removeprefix("schedule_"): value for name, value in values.items() if name.startswith("schedule_")}
    own["schedule"] = replace(own["schedule"], **pace)
    return kind(architecture(**{name: value for name, value in values.items() if name in names}), **own)


def denoiser_recipe(**change: object) -> DenoiserRecipe:
    """Learning rates so large that the norm constraint acts: only then does resuming have something to get wrong."""
    schedule = LearningSchedule(
        STEPS, learning_rate=0.5, kernel_rate=1.0, warmup_steps=1, validate_every=4, checkpoint_every=3, average_decay=0.9
    )
    values = {"features": 8, "blocks": 1, "patch_size": 16, "batch_size": 2, "precision": "32-true", "schedule": schedule}
    return composed(DenoiserRecipe, DenoiserArchitecture, {**values, **change})


def ridge_recipe(**change: object) -> RidgeRecipe:
    """A few kernels on small patches, fast enough that slopes leave their range unless they are brought back."""
    schedule = LearningSchedule(STEPS, learning_rate=0.05, warmup_steps=1, validate_every=4, checkpoint_every=3)
    values = {"filters": 2, "kernel_size": 5, "patch_size": 16, "batch_size": 2, "precision": "32-true", "schedule": schedule}
    return composed(RidgeRecipe, RidgeArchitecture, {**values, **change})


def guided_recipe(**change: object) -> GuidedRecipe:
    """A network of one layer; `start` names the potential."""
    schedule = LearningSchedule(STEPS, learning_rate=0.02, warmup_steps=1, validate_every=4, checkpoint_every=3)
    values = {"width": 4, "dilations": (1,), "patch_size": 16, "batch_size": 2, "precision": "32-true", "schedule": schedule}
    return composed(GuidedRecipe, GuidedShape, {**values, **change})


def run_denoiser(
    folder: Path, *, stop: int | None = None, images: Dataset | None = None, **change: object
) -> tuple[dict[str, Tensor], list[float]]:
    """Train to the end or to a step; what the checkpoint then holds, and the losses of the steps done."""
    losses: list[float] = []
    for report, _ in train(denoiser_recipe(**change), images or Waves(), Waves(), folder, fused=False):
        losses.append(report.loss)
        if report.step == stop:
            break
    return read(folder / "checkpoint.safetensors")[0], losses


def bars(count: int = 60, side: int = 8) -> LabeledImages:
    """Horizontal, vertical and no bars in noise: a task that a few steps learn."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 90, (count, 1, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 3
    for k, label in enumerate(labels.tolist()):
        row = int(torch.randint(2, side - 2, (1,), generator=generator))
        if label < 2:
            images[k, 0].transpose(0, label)[row] += 150
    return LabeledImages(images, labels, ("horizontal", "vertical", "none"))


def classifier_recipe(**change: object) -> ClassifierRecipe:
    """Six steps of a network of two stages."""
    schedule = replace(SCHEDULE, steps=6, learning_rate=0.02, warmup_steps=1, validate_every=3, checkpoint_every=2)
    values = {"stages": ((8, 1), (32, 1)), "dense_features": 8, "dense_blocks": 1, "batch_size": 8, "flip": False, "crop": 1}
    return composed(ClassifierRecipe, ClassifierShape, {**values, "precision": "32-true", "schedule": schedule, **change})
