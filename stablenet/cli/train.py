"""`stablenet train denoiser | ridge | guided | classifier`: data in, weights with their card out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import tyro
from torch.utils.data import Subset

from stablenet.bundled import weights_path
from stablenet.certificate import certify
from stablenet.cli.parts import REGISTRY
from stablenet.images.labeled import LabeledImages
from stablenet.images.photographs import BundledPhotographs, FolderImages
from stablenet.images.sources import LabeledSource
from stablenet.training import classifier, denoiser
from stablenet.training.devices import fabric_on
from stablenet.training.recipe import ClassifierRecipe, DenoiserRecipe, GuidedRecipe, RidgeRecipe, recipe_of_card
from stablenet.training.session import Session
from stablenet.weights import load, read_card

Device = Annotated[str, tyro.conf.arg(metavar="{auto,cpu,cuda}")]
FLAT = tyro.conf.arg(name="")


@dataclass(frozen=True)
class OnPhotographs:
    """What trainings on photographs share."""

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
    """Repeat the recipe of this card (a .json beside weights), but for the recipe flags that are given too."""
    device: Device = "auto"
    """Where to train; cuda:1 is the second GPU."""
    devices: int = 1
    """How many devices to train on (lightning-fabric)."""
    recipe: Annotated[denoiser.Photographic, FLAT] = field(default_factory=DenoiserRecipe)

    def __post_init__(self) -> None:
        if self.devices < 1 or self.validation_count < 1:
            raise ValueError(f"devices and validation_count must be >= 1, got {self.devices}, {self.validation_count}")

    def session(self) -> Session:
        """The run, with its images read."""
        return self.session_of(self.recipe)

    def run(self) -> Path:
        """Train; returns the path of the weights."""
        return self.session().run()

    def session_of(self, recipe: denoiser.Photographic, *, fused: bool = False) -> Session:
        """The run, with its images read."""
        fabric, channels = fabric_on(self.device, self.devices), recipe.architecture.channels
        images, source = open_images(self.data, channels, self.exclude), {}
        others = open_images(self.validation, channels) if self.validation else images
        held_out = Subset(others, range(min(self.validation_count, len(others))))
        if recipe.start is not None:
            path = weights_path(recipe.start)
            source = {"start": {"name": path.stem, "sha256": read_card(path)["sha256"]}}
        folders = ["/".join(path.resolve().parts[-2:]) for path in self.data] or ["scikit-image's bundled photographs"]
        described = {"folders": folders, "images": len(images), "excluded": list(self.exclude)}
        name = ", ".join(map(str, self.data)) or folders[0]
        steps = denoiser.train(recipe, images, held_out, self.output, fabric=fabric, fused=fused, data_name=name)
        target = self.output / f"{self.name}.safetensors"
        return Session(steps, target, recipe, {**source, "data": described}, fabric)


@dataclass(frozen=True)
class TrainDenoiser(OnPhotographs):
    """Train a certified denoiser. A killed run continues from its last checkpoint and ends with the same weights."""

    fused: bool = True
    """Compile the splines into one kernel where a compiler is found."""
    recipe: Annotated[DenoiserRecipe, FLAT] = field(default_factory=DenoiserRecipe)

    def session(self) -> Session:
        """The run, with its images read."""
        return self.session_of(self.recipe, fused=self.fused)


@dataclass(frozen=True)
class TrainRidge(OnPhotographs):
    """Train a ridge potential, convex or weakly convex, to denoise as its proximal map. A killed run continues from its last
    checkpoint and ends with the same weights."""

    output: Path = Path("runs/ridge")
    name: str = "ridge"
    recipe: Annotated[RidgeRecipe, FLAT] = field(default_factory=RidgeRecipe)


@dataclass(frozen=True)
class TrainGuided(OnPhotographs):
    """Train the network that weighs the features of a ridge potential by a guide. A killed run continues from its last
    checkpoint and ends with the same weights."""

    output: Path = Path("runs/guided")
    name: str = "guided"
    recipe: Annotated[GuidedRecipe, FLAT] = field(default_factory=GuidedRecipe)


def open_images(folders: tuple[Path, ...], channels: int, exclude: tuple[str, ...] = ()) -> FolderImages | BundledPhotographs:
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
    """Repeat the recipe of this card (a .json beside weights), but for the recipe flags that are given too."""
    device: Device = "auto"
    """Where to train; cuda:1 is the second GPU."""
    devices: int = 1
    """How many devices to train on (lightning-fabric)."""
    recipe: Annotated[ClassifierRecipe, FLAT] = field(default_factory=ClassifierRecipe)

    def __post_init__(self) -> None:
        if self.devices < 1 or self.channels not in (1, 3):
            raise ValueError(f"devices must be >= 1 and channels 1 or 3, got {self.devices}, {self.channels}")

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

    def session(self) -> Session:
        """The run, with its images read."""
        from stablenet.robustness.slack import slack_of

        recipe, fabric = self.recipe, fabric_on(self.device, self.devices)
        images, held_out = self.sets()
        source = "/".join(self.validation.resolve().parts[-2:]) if self.validation else str(self.images)
        described = {"source": str(self.images), "images": len(images), "classes": list(images.classes)}
        described["validation"] = f"{len(held_out)} held-out images of {source}"
        at_first = {"slack_at_first": asdict(slack_of(classifier.initial(recipe, images), held_out))}
        steps = classifier.train(recipe, images, held_out, self.output, fabric=fabric, data_name=str(self.images))
        target = self.output / f"{self.name}.safetensors"

        def measure(network: Any) -> dict[str, object]:
            return {"slack": asdict(slack_of(network, held_out))}

        return Session(steps, target, recipe, {"data": described, **at_first}, fabric, measure)

    def run(self) -> Path:
        """Train; returns the path of the weights."""
        return self.session().run()


Command = TypeVar("Command", TrainDenoiser, TrainRidge, TrainGuided, TrainClassifier)


def parse(kind: type[Command], arguments: Sequence[str], *, prog: str | None = None) -> Command:
    """A training from its flags; where a card is named, they change its recipe.

    Raises
    ------
    ValueError : there is no such card, or it holds no recipe of that kind.
    """
    command: Command = tyro.cli(kind, prog=prog, args=arguments, registry=REGISTRY)
    if command.card is None:
        return command
    default = replace(command, recipe=recipe_of_card(type(command.recipe), command.card))
    return tyro.cli(kind, prog=prog, args=arguments, registry=REGISTRY, default=default)


TRAININGS = {"denoiser": TrainDenoiser, "ridge": TrainRidge, "guided": TrainGuided, "classifier": TrainClassifier}


def run_training(arguments: Sequence[str]) -> None:
    """Parse, train, and print the certificate of what came out.

    Raises
    ------
    ValueError : the extra `train` is missing, or whatever training refuses.
    """
    from stablenet.robustness.slack import Slack

    if not arguments or arguments[0] not in TRAININGS:
        print(f"usage: stablenet train {{{','.join(TRAININGS)}}} [--help]", file=sys.stderr)
        raise SystemExit(0 if list(arguments[:1]) in (["--help"], ["-h"]) else 2)
    name, *rest = arguments
    path: Path = parse(TRAININGS[name], rest, prog=f"stablenet train {name}").run()
    print(f"wrote {path}")
    print(certify(load(path)))
    card = read_card(path)
    for entry in ("slack_at_first", "slack"):  # of a classifier
        if entry in card:
            print(f"{entry.replace('_', ' ')}: {Slack(**card[entry])}")
