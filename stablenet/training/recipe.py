"""Recipes: all that determines a trained network, its data aside; the command line's flags, the checkpoint's header, the card.

Source: what photographs' recipes share is in training/patches.py; the L1 loss of ridge potentials is that of [Goujon2023].
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import tyro

from stablenet.cards import read_fields, write_fields
from stablenet.networks.architectures import (
    ClassifierArchitecture,
    ClassifierShape,
    DenoiserArchitecture,
    GuidedShape,
    RidgeArchitecture,
)
from stablenet.training.losses import LOSSES
from stablenet.training.patches import PatchRecipe
from stablenet.training.precision import check_precision
from stablenet.training.schedule import PACE, LearningSchedule


class Recipe(Protocol):
    """What the loop needs to know of a recipe."""

    @property
    def seed(self) -> int: ...

    @property
    def precision(self) -> str: ...

    @property
    def schedule(self) -> LearningSchedule: ...

    def to_json(self) -> str: ...

    @staticmethod
    def from_json(text: str) -> Any: ...


@dataclass(frozen=True)
class DenoiserRecipe(PatchRecipe):
    """Everything that determines a trained `Denoiser`, data aside."""

    architecture: Annotated[DenoiserArchitecture, tyro.conf.arg(name="")] = DenoiserArchitecture()
    anchor: float | None = None
    """Where all anchors but the last begin, at most (`Denoiser.lowered`), idle blocks dropped before; none: as they are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.anchor is not None and not 0 < self.anchor < 1:
            raise ValueError(f"anchor must lie in (0, 1), got {self.anchor}")

    def to_json(self) -> str:
        """The recipe as a card and a checkpoint hold it."""
        return _written(self)

    @staticmethod
    def from_json(text: str) -> DenoiserRecipe:
        """The recipe of a card or a checkpoint, of this version or of the first."""
        return _read(DenoiserRecipe, DenoiserArchitecture, text)


RIDGE_SCHEDULE = LearningSchedule(
    2000, learning_rate=8e-3, kernel_rate=0.15, warmup_steps=50, average_decay=0.99, validate_every=500, gradient_clip=0.02
)


@dataclass(frozen=True)
class RidgeRecipe(PatchRecipe):
    """Everything that determines a trained `Ridge`, data aside; D is the proximal map of the potential."""

    architecture: Annotated[RidgeArchitecture, tyro.conf.arg(name="")] = RidgeArchitecture()
    patch_size: int = 64
    batch_size: int = 4
    error: str = "absolute"
    weight_power: float = 0.7
    least_level: float = 0.5 / 255
    schedule: LearningSchedule = RIDGE_SCHEDULE

    def to_json(self) -> str:
        """The recipe as a card and a checkpoint hold it."""
        return _written(self)

    @staticmethod
    def from_json(text: str) -> RidgeRecipe:
        """The recipe of a card or a checkpoint."""
        return _read(RidgeRecipe, RidgeArchitecture, text)


GUIDED_SCHEDULE = LearningSchedule(
    4000, learning_rate=1e-3, kernel_rate=1.0, warmup_steps=100, average_decay=0.998, validate_every=500, gradient_clip=0.01
)


@dataclass(frozen=True)
class GuidedRecipe(PatchRecipe):
    """Everything that determines a trained `Guided`, data aside. `start` is the potential, which stays as it is."""

    architecture: Annotated[GuidedShape, tyro.conf.arg(name="")] = GuidedShape()
    start: str | None = "ridge-gray"
    refreshes: int = 2
    """How often the guide is taken anew: the potential's own estimate, then each result; all of them are in the loss."""
    patch_size: int = 64
    batch_size: int = 8
    stratified: bool = True
    schedule: LearningSchedule = GUIDED_SCHEDULE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start is None or self.refreshes < 1:
            raise ValueError(
                f"a guided denoiser starts from a potential and has refreshes >= 1, got {self.start}, {self.refreshes}"
            )

    def to_json(self) -> str:
        """The recipe as a card and a checkpoint hold it."""
        return _written(self)

    @staticmethod
    def from_json(text: str) -> GuidedRecipe:
        """The recipe of a card or a checkpoint."""
        return _read(GuidedRecipe, GuidedShape, text)


SCHEDULE = LearningSchedule(
    2000,
    learning_rate=3e-3,
    kernel_rate=4.0,
    optimizer="orthogonalized",
    evenness=0.02,
    warmup_steps=100,
    average_decay=0.99,
    validate_every=200,
    checkpoint_every=200,
)


@dataclass(frozen=True)
class ClassifierRecipe:
    """Everything that determines a trained classifier, data aside."""

    architecture: Annotated[ClassifierShape, tyro.conf.arg(name="")] = ClassifierShape()
    loss: str = "certified-cross-entropy"
    """cross-entropy, multi-margin or certified-cross-entropy."""
    offset: float = 0.7
    """The radius that a right answer has to be certified beyond to count, an l2 distance for images in [0, 1]."""
    temperature: float = 0.25
    batch_size: int = 128
    crop: int = 0
    """Random shifts by up to so many pixels, what enters being the image reflected; 0: none."""
    flip: bool = True
    """Random horizontal flips."""
    seed: int = 0
    precision: str = "auto"
    """32-true, bf16-mixed (convolutions in bf16, weights kept in float32), or auto: bf16-mixed where it is fast."""
    schedule: LearningSchedule = SCHEDULE

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.crop < 0:
            raise ValueError(f"batch_size must be >= 1 and crop >= 0, got {self.batch_size}, {self.crop}")
        if not (self.offset >= 0 and self.temperature > 0):
            raise ValueError(f"offset must be >= 0 and temperature > 0, got {self.offset}, {self.temperature}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        check_precision(self.precision)

    def sized(self, shape: tuple[int, int, int], classes: int) -> ClassifierArchitecture:
        """The architecture for images of (channels, height, width) and so many classes.

        Raises
        ------
        ValueError : the stages do not fit the images.
        """
        channels, height, width = shape
        own = {f.name: getattr(self.architecture, f.name) for f in fields(ClassifierShape)}
        return ClassifierArchitecture(**own, channels=channels, height=height, width=width, classes=classes)

    def to_json(self) -> str:
        """The recipe as a card and a checkpoint hold it."""
        return _written(self)

    @staticmethod
    def from_json(text: str) -> ClassifierRecipe:
        """The recipe of a card or a checkpoint, of this version or of the first."""
        return _read(ClassifierRecipe, ClassifierShape, text)


Kind = TypeVar("Kind", DenoiserRecipe, RidgeRecipe, GuidedRecipe, ClassifierRecipe)


def _written(recipe: DenoiserRecipe | RidgeRecipe | GuidedRecipe | ClassifierRecipe) -> str:
    values = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    values |= {"architecture": write_fields(recipe.architecture), "schedule": asdict(recipe.schedule)}
    return json.dumps(values, sort_keys=True)


def _read(kind: type[Kind], architecture: type, text: str) -> Kind:
    """In the first version the architecture's entries stood in the recipe itself; what it lacked has the value it had then."""
    values = json.loads(text)
    if "architecture" not in values:
        own = {f.name for f in fields(architecture)} & values.keys()
        values["architecture"] = {name: values.pop(name) for name in own}
    values["architecture"] = read_fields(architecture, values["architecture"], "recipe.architecture")
    values["schedule"] = LearningSchedule(**values["schedule"])
    return replace(kind(), **values)


def recipe_of_card(kind: type[Kind], card: Path) -> Kind:
    """The recipe that a card tells.

    Raises
    ------
    ValueError : there is no such card, or it holds no recipe of that kind.
    """
    if not card.is_file():
        raise ValueError(f"no card at {card}: give the .json beside the weights")
    try:
        return kind.from_json(json.dumps(json.loads(card.read_text())["recipe"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the card {card} holds no recipe that can be repeated: {error!r}") from None


def entries(recipe: Recipe) -> dict[str, object]:
    """Every entry by its flag on the command line: seed, blocks, schedule.steps, ..."""
    values = json.loads(recipe.to_json())
    flat = {**values.pop("architecture"), **values}
    return flat | {f"schedule.{name}": value for name, value in flat.pop("schedule").items()}


def conflicts(ours: Recipe, theirs: Recipe) -> list[str]:
    """The entries that keep a run under `theirs` from going on under `ours`: all but the learning rate and the pace."""
    free = {f"schedule.{name}" for name in (*PACE, "learning_rate")}
    mine, others = entries(ours), entries(theirs)
    return sorted(name for name in mine.keys() | others.keys() if name not in free and mine.get(name) != others.get(name))
