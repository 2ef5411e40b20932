"""A training run from the command line: data in, progress shown, weights with their card out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from lightning_fabric import Fabric
from rich.progress import Progress
from torch import nn
from torch.utils.data import Dataset, Subset

from stablenet.bundled import weights_path
from stablenet.images.labeled import LabeledImages
from stablenet.images.photographs import BundledPhotographs, FolderImages
from stablenet.images.sources import LabeledSource
from stablenet.robustness.slack import slack
from stablenet.training.classifier import ClassifierRecipe, initial
from stablenet.training.classifier import train as train_classifier
from stablenet.training.denoiser import DenoiserRecipe, train
from stablenet.training.loop import Record
from stablenet.weights import read_card, save


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
            object.__setattr__(self, "recipe", _recipe_of(self.card, DenoiserRecipe))


def open_images(folders: tuple[Path, ...], channels: int, exclude: tuple[str, ...] = ()) -> Dataset:
    """The images below `folders`, or scikit-image's bundled photographs when none is given."""
    return FolderImages(folders, channels=channels, exclude=exclude) if folders else BundledPhotographs(channels=channels)


@dataclass(frozen=True)
class TrainClassifier:
    """Train a certified-Lipschitz classifier. A killed run continues from its last checkpoint, to the same weights."""

    images: tyro.conf.OmitArgPrefixes[LabeledSource] = LabeledSource()
    """Training images."""
    validation: Path | None = None
    """Validation images, laid out as `data`; none: the test images of `dataset`, or else 15 % of the training images (of the
    bundled ones the last 1,500)."""
    channels: int = 3
    """Of the images read from class folders, 1 (gray) or 3 (color)."""
    output: Path = Path("runs/classifier")
    """Where checkpoint, log.csv, weights and card go."""
    name: str = "classifier"
    """Of the weights: OUTPUT/NAME.safetensors with OUTPUT/NAME.json, their card."""
    card: Path | None = None
    """Repeat the recipe of this card (a .json beside weights); the other recipe flags are then ignored."""
    devices: int = 1
    """How many devices to train on (lightning-fabric)."""
    recipe: Annotated[ClassifierRecipe, tyro.conf.arg(name="")] = field(default_factory=ClassifierRecipe)

    def __post_init__(self) -> None:
        if self.devices < 1 or self.channels not in (1, 3):
            raise ValueError(f"devices must be >= 1 and channels 1 or 3, got {self.devices}, {self.channels}")
        if self.card is not None:
            object.__setattr__(self, "recipe", _recipe_of(self.card, ClassifierRecipe))

    def sets(self) -> tuple[LabeledImages, LabeledImages]:
        """Training and validation images."""
        images = self.images.read(train=True, channels=self.channels)
        if self.validation is not None:
            return images, replace(self.images, data=self.validation).read(train=False, channels=self.channels)
        if self.images.has_test:
            return images, self.images.read(train=False, channels=self.channels)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        order = torch.arange(len(images)) if self.images.is_shuffled else order
        shuffled = LabeledImages(images.images[order], images.labels[order], images.classes)
        kept = len(images) - max(1, round(0.15 * len(images)))
        return shuffled.part(None, kept), shuffled.part(kept, None)


@dataclass(frozen=True)
class Started:
    """A run about to go: its steps, what its card tells of where it comes from, and what is measured beside each validation."""

    steps: Iterator[tuple[Record, nn.Module]]
    provenance: dict[str, object]
    measure: Callable[[nn.Module], dict[str, object]]


def run(command: TrainDenoiser | TrainClassifier) -> Path:
    """Train, showing progress; after each validation the averaged weights and their card are written; returns the path.

    Raises
    ------
    ValueError : bad folders or images, or a checkpoint of another recipe in the output folder.
    """
    fabric = Fabric(accelerator="auto", devices=command.devices)
    started = (_denoiser if isinstance(command, TrainDenoiser) else _classifier)(command, fabric)
    target = command.output / f"{command.name}.safetensors"
    with Progress(disable=None) as progress:
        bar = progress.add_task("training", total=command.recipe.schedule.steps)
        for record, average in started.steps:
            progress.update(bar, completed=record.step, description=f"loss {record.loss:.4f}")
            if record.validation and fabric.is_global_zero:
                scores = ", ".join(f"{name} {value:.4g}" for name, value in record.validation.items())
                progress.console.print(f"step {record.step}: {scores}")
                reached = {"steps": record.step, "validation": record.validation, "torch": torch.__version__}
                save(average, target, **started.provenance, **reached, **started.measure(average))
    return target


def _denoiser(command: TrainDenoiser, fabric: Fabric) -> Started:
    recipe, source = command.recipe, {}
    images = open_images(command.data, recipe.channels, command.exclude)
    held_out = open_images(command.validation, recipe.channels) if command.validation else images
    held_out = Subset(held_out, range(min(command.validation_count, len(held_out))))
    if recipe.start is not None:
        path = weights_path(recipe.start)
        source = {"start": {"name": path.stem, "sha256": read_card(path)["sha256"]}}
    folders = ["/".join(path.resolve().parts[-2:]) for path in command.data] or ["scikit-image's bundled photographs"]
    described = {"folders": folders, "images": len(images), "excluded": list(command.exclude)}
    steps = train(recipe, images, held_out, command.output, fabric=fabric, fused=command.fused)
    return Started(steps, {"recipe": asdict(recipe), **source, "data": described}, lambda network: {})


def _classifier(command: TrainClassifier, fabric: Fabric) -> Started:
    recipe = command.recipe
    images, held_out = command.sets()
    source = "/".join(command.validation.resolve().parts[-2:]) if command.validation else str(command.images)
    described = {"source": str(command.images), "images": len(images), "classes": list(images.classes)}
    described["validation"] = f"{len(held_out)} held-out images of {source}"
    at_first = {"slack_at_first": asdict(slack(initial(recipe, images), held_out))}
    steps = train_classifier(recipe, images, held_out, command.output, fabric=fabric)
    provenance = {"recipe": asdict(recipe), "data": described, **at_first}
    return Started(steps, provenance, lambda network: {"slack": asdict(slack(network, held_out))})


def _recipe_of(card: Path, kind: type[DenoiserRecipe] | type[ClassifierRecipe]) -> DenoiserRecipe | ClassifierRecipe:
    if not card.is_file():
        raise ValueError(f"no card at {card}: give the .json beside the weights")
    try:
        return kind.from_json(json.dumps(json.loads(card.read_text())["recipe"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the card {card} holds no recipe that can be repeated: {error!r}") from None


COMMANDS = {"denoiser": TrainDenoiser, "classifier": TrainClassifier}
