"""How a classifier is trained: recipe, certificate-aware loss, augmented batches, clean and certified accuracy.

Source: the shared loop (training/loop.py); the recipe in a checkpoint's header and card is this one dataclass.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stablenet.images.labeled import LabeledImages
from stablenet.networks.architectures import ClassifierArchitecture, ClassifierShape
from stablenet.networks.classifier import Classifier
from stablenet.robustness.certification import certified_accuracy
from stablenet.robustness.report import certified_quickly
from stablenet.training.loop import Record, Schedule, fit
from stablenet.training.losses import LOSSES
from stablenet.training.records import logged

EPSILONS = (0.0, 36 / 255, 72 / 255, 108 / 255, 0.5, 1.0)

SCHEDULE = Schedule(
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
class ClassifierRecipe(ClassifierShape):
    """Everything that determines a trained classifier, data aside."""

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
    precision: str = "bf16-mixed"
    """32-true, or bf16-mixed: convolutions in bf16, weights kept in float32."""
    schedule: Schedule = SCHEDULE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 1 or self.crop < 0:
            raise ValueError(f"batch_size must be >= 1 and crop >= 0, got {self.batch_size}, {self.crop}")
        if not (self.offset >= 0 and self.temperature > 0):
            raise ValueError(f"offset must be >= 0 and temperature > 0, got {self.offset}, {self.temperature}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        if self.precision not in ("32-true", "bf16-mixed"):
            raise ValueError(f"precision must be '32-true' or 'bf16-mixed', got {self.precision!r}")

    def architecture(self, shape: tuple[int, int, int], classes: int) -> ClassifierArchitecture:
        sizes = dict(zip(("channels", "height", "width"), shape, strict=True))
        return ClassifierArchitecture(
            **sizes, classes=classes, **{f.name: getattr(self, f.name) for f in fields(ClassifierShape)}
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> ClassifierRecipe:
        values = json.loads(text)
        return replace(ClassifierRecipe(), **{**values, "schedule": Schedule(**values["schedule"])})


def random_batch(
    dataset: LabeledImages, *, count: int, crop: int, flip: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`count` images drawn with replacement, (count, channels, height, width) float32 in [0, 1], and their labels.

    Each is shifted and flipped by torchvision's transforms, reproducibly from the generator.
    """
    from torchvision.transforms import v2

    indices = torch.randint(len(dataset), (count,), generator=generator)
    seed = int(torch.randint(2**62, (1,), generator=generator))
    shift = v2.RandomCrop(dataset.shape[1:], padding=crop, padding_mode="reflect") if crop else v2.Identity()
    augment = v2.Compose([shift, v2.RandomHorizontalFlip() if flip else v2.Identity()])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        images = torch.stack([augment(image) for image in dataset.images[indices]])
    return images.float() / 255, dataset.labels[indices]


def evaluate(network: nn.Module, dataset: LabeledImages, epsilons: Sequence[float] = EPSILONS) -> dict[float, float]:
    """Certified accuracy at each epsilon (l2, images in [0, 1]); at 0 it is the clean accuracy.

    Raises
    ------
    ValueError : images of another shape than the network's, labels beyond its classes, an epsilon out of range.
    """
    predictions, radii = certified_quickly(network, dataset)
    return certified_accuracy(radii, predictions, dataset.labels, epsilons)


def initial(recipe: ClassifierRecipe, dataset: LabeledImages) -> Classifier:
    """The network that training begins with."""
    torch.manual_seed(recipe.seed)
    return Classifier(recipe.architecture(dataset.shape, len(dataset.classes)))


def train(
    recipe: ClassifierRecipe,
    dataset: LabeledImages,
    validation: LabeledImages,
    folder: Path,
    *,
    fabric: Fabric | None = None,
    model: nn.Module | None = None,
) -> Iterator[tuple[Record, nn.Module]]:
    """Train a classifier, yielding (record, averaged classifier) a step; checkpoints and log.csv go to `folder`.

    The batch is that of one process whatever the number of devices: each takes its share of it. `model` replaces the
    network of the recipe by any module with the same call, a `head` and `pairwise_lipschitz()`, for comparisons.

    Raises
    ------
    ValueError : an architecture or a shift that does not fit the images, a checkpoint of another recipe, a NaN loss.
    """
    if recipe.crop >= min(dataset.shape[1:]):
        raise ValueError(f"crop must be smaller than the images, got {recipe.crop} for {tuple(dataset.shape)}")
    fabric = fabric or Fabric(accelerator="auto", devices=1)
    fabric.launch()
    if recipe.batch_size % fabric.world_size:
        raise ValueError(f"batch_size {recipe.batch_size} cannot be shared by {fabric.world_size} devices: choose a multiple")
    model = initial(recipe, dataset) if model is None else model
    share = slice(fabric.global_rank, None, fabric.world_size)

    def loss(network: nn.Module, generator: torch.Generator) -> Tensor:
        images, labels = random_batch(dataset, count=recipe.batch_size, crop=recipe.crop, flip=recipe.flip, generator=generator)
        images, labels = images[share].to(fabric.device), labels[share].to(fabric.device)
        with torch.autocast(fabric.device.type, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            logits = network(images)
        constants = model.head.distances()
        return LOSSES[recipe.loss](logits.float(), labels, constants, offset=recipe.offset, temperature=recipe.temperature)

    def validate(average: nn.Module) -> dict[str, float]:
        return {f"certified_{round(255 * e)}": v for e, v in evaluate(average, validation).items()}

    runs = fit(
        fabric,
        model,
        loss,
        recipe.schedule,
        seed=recipe.seed,
        validation=validate,
        checkpoint=folder / "checkpoint.safetensors",
        recipe=recipe.to_json(),
        shared_batches=True,
        half=recipe.precision == "bf16-mixed",
    )
    yield from logged(runs, folder, write=fabric.is_global_zero)
