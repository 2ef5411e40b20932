"""Recipes: all that determines a trained network, its data aside; the command line's flags, the checkpoint's header, the card.

Source: the loss weights of a denoiser are those of [Sherry2024]'s practice: errors count in units of the noise.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import torch
import tyro
from torch import Tensor

from stablenet.cards import read_fields, write_fields
from stablenet.networks.architectures import ClassifierArchitecture, ClassifierShape, DenoiserArchitecture
from stablenet.training.losses import ERRORS, LOSSES
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
class DenoiserRecipe:
    """Everything that determines a trained denoiser, data aside.

    The loss is the mean over a batch of mean(error(D(y, s) - x)) / (s + 2/255)^weight_power, with s uniform in
    [0, max_noise_level] (or always `noise_level`).
    """

    architecture: Annotated[DenoiserArchitecture, tyro.conf.arg(name="")] = DenoiserArchitecture()
    noise_level: float | None = None
    """Train at this level alone instead of all levels up to the largest."""
    start: str | None = None
    """Weights to grow from, a shipped name or a path (`Denoiser.grown`); none: a tight frame of cosines."""
    anchor: float | None = None
    """Where all anchors but the last begin, at most (`Denoiser.lowered`), idle blocks dropped before; none: as they are."""
    patch_size: int = 48
    margin: int = 0
    """Pixels next to a patch's border that the loss leaves out: there the zero padding rules, unlike in a large image."""
    batch_size: int = 16
    stratified: bool = False
    """Draw one noise level from each of batch_size equal parts of the range, which steadies small batches."""
    error: str = "square"
    """What an error of a pixel counts: square, absolute or charbonnier. Absolute ones want half the weight_power."""
    flat_share: float = 0.0
    """The chance of a patch to be one constant gray or color, so that what is left of noise there counts as much."""
    weight_power: float = 1.5
    seed: int = 0
    precision: str = "auto"
    """32-true, bf16-mixed (convolutions in bf16, images and weights kept in float32), or auto: bf16-mixed where it is fast."""
    schedule: LearningSchedule = LearningSchedule(steps=1000, validate_every=250)

    def __post_init__(self) -> None:
        a = self.architecture
        if a.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (gray) or 3 (color) for photographs, got {a.channels}")
        if self.patch_size < 8 or self.batch_size < 1:
            raise ValueError(f"patch_size must be >= 8 and batch_size >= 1, got {self.patch_size}, {self.batch_size}")
        if not 0 <= 2 * self.margin < self.patch_size:
            raise ValueError(f"margin must be >= 0 and below half the patch_size {self.patch_size}, got {self.margin}")
        if self.noise_level is not None and not 0 < self.noise_level <= a.max_noise_level:
            raise ValueError(f"noise_level must lie in (0, {a.max_noise_level:.4g}], got {self.noise_level}")
        if self.error not in ERRORS or not 0 <= self.flat_share < 1:
            raise ValueError(f"error must be {', '.join(ERRORS)}, flat_share in [0, 1), got {self.error!r}, {self.flat_share}")
        if self.anchor is not None and not 0 < self.anchor < 1:
            raise ValueError(f"anchor must lie in (0, 1), got {self.anchor}")
        check_precision(self.precision)

    def noise_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) standard deviations for one batch."""
        if self.noise_level is not None:
            return torch.full((count,), self.noise_level)
        level = torch.rand(count, generator=generator)
        return self.architecture.max_noise_level * ((level + torch.arange(count)) / count if self.stratified else level)

    def loss(self, restored: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        """The weighted error over the inside of the patches; images (batch, channels, size, size), level (batch,)."""
        inner = slice(self.margin, clean.shape[-1] - self.margin)
        error = ERRORS[self.error]((restored - clean)[..., inner, inner]).mean((1, 2, 3))
        return (error / (level + 2 / 255) ** self.weight_power).mean()

    def to_json(self) -> str:
        """The recipe as a card and a checkpoint hold it."""
        return _written(self)

    @staticmethod
    def from_json(text: str) -> DenoiserRecipe:
        """The recipe of a card or a checkpoint, of this version or of the first."""
        return _read(DenoiserRecipe, DenoiserArchitecture, text)


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


Kind = TypeVar("Kind", DenoiserRecipe, ClassifierRecipe)


def _written(recipe: DenoiserRecipe | ClassifierRecipe) -> str:
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
