"""A training run from the command line: data in, progress shown, weights with their card out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from lightning_fabric import Fabric
from rich.progress import Progress
from torch.utils.data import Dataset, Subset

from stablenet.data import BundledPhotographs, FolderImages
from stablenet.pretrained import read_card, save, weights_path
from stablenet.training.denoiser import DenoiserRecipe, train


@dataclass(frozen=True)
class TrainDenoiser:
    """Train a certified denoiser. A killed run continues from its last checkpoint and ends with the same weights."""

    data: tuple[Path, ...] = ()
    """Folders of training images, searched recursively; none: scikit-image's bundled photographs."""
    validation: tuple[Path, ...] = ()
    """Folders of validation images; none: the training images."""
    validation_count: int = 8
    """How many of them to use (the first, by path)."""
    exclude: tuple[str, ...] = ()
    """File names to leave out of training, as 12003.jpg."""
    output: Path = Path("runs/denoiser")
    """Where checkpoint, log.csv, weights and card go."""
    name: str = "denoiser"
    """Of the weights: OUTPUT/NAME.safetensors with OUTPUT/NAME.json, their card."""
    card: Path | None = None
    """Repeat the recipe of this card (a .json beside weights); the other recipe flags are then ignored."""
    devices: int = 1
    """How many devices to train on (lightning-fabric)."""
    fused: bool = True
    """Compile the splines into one kernel where a compiler is found."""
    recipe: Annotated[DenoiserRecipe, tyro.conf.arg(name="")] = field(default_factory=DenoiserRecipe)

    def __post_init__(self) -> None:
        if self.devices < 1 or self.validation_count < 1:
            raise ValueError(f"devices and validation_count must be >= 1, got {self.devices}, {self.validation_count}")
        if self.card is not None:
            if not self.card.is_file():
                raise ValueError(f"no card at {self.card}: give the .json beside the weights")
            try:
                recipe = DenoiserRecipe.from_json(json.dumps(json.loads(self.card.read_text())["recipe"]))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"the card {self.card} holds no recipe that can be repeated: {error!r}") from None
            object.__setattr__(self, "recipe", recipe)


def open_images(folders: tuple[Path, ...], channels: int, exclude: tuple[str, ...] = ()) -> Dataset:
    """The images below `folders`, or scikit-image's bundled photographs when none is given."""
    return FolderImages(folders, channels=channels, exclude=exclude) if folders else BundledPhotographs(channels=channels)


def run(command: TrainDenoiser) -> Path:
    """Train, showing progress; after each validation the averaged weights and their card are written; returns the path.

    Raises
    ------
    ValueError : bad folders or images, or a checkpoint of another recipe in the output folder.
    """
    recipe, images = command.recipe, open_images(command.data, command.recipe.channels, command.exclude)
    held_out = open_images(command.validation, recipe.channels) if command.validation else images
    held_out = Subset(held_out, range(min(command.validation_count, len(held_out))))
    fabric = Fabric(accelerator="auto", devices=command.devices)
    target = command.output / f"{command.name}.safetensors"
    with Progress(disable=None) as progress:
        bar = progress.add_task("training", total=recipe.schedule.steps)
        for record, average in train(recipe, images, held_out, command.output, fabric=fabric, fused=command.fused):
            progress.update(bar, completed=record.step, description=f"loss {record.loss:.4f}")
            if record.validation and fabric.is_global_zero:
                scores = ", ".join(f"{name} {value:.2f}" for name, value in record.validation.items())
                progress.console.print(f"step {record.step}: {scores}")
                save(average, target, **_provenance(command, images, record.step, record.validation))
    return target


def _provenance(command: TrainDenoiser, images: Dataset, step: int, scores: dict[str, float]) -> dict[str, object]:
    recipe, source = command.recipe, {}
    if recipe.start is not None:
        path = weights_path(recipe.start)
        source = {"start": {"name": path.stem, "sha256": read_card(path)["sha256"]}}
    folders = ["/".join(path.resolve().parts[-2:]) for path in command.data] or ["scikit-image's bundled photographs"]
    return {
        "recipe": asdict(recipe),
        **source,
        "data": {"folders": folders, "images": len(images), "excluded": list(command.exclude)},
        "steps": step,
        "validation": scores,
        "torch": torch.__version__,
    }
