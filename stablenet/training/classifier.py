"""How a classifier is trained: recipe, certificate-aware loss, augmented batches, clean and certified accuracy.

Source: the shared loop (training/loop.py); the recipe in a checkpoint's header and card is this one dataclass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from stablenet.images.labeled import LabeledImages
from stablenet.networks.classifier import Classifier
from stablenet.robustness.certification import certified_accuracy
from stablenet.robustness.report import certified_quickly
from stablenet.training import fingerprint
from stablenet.training.devices import fabric_on
from stablenet.training.loop import Objective, StepReport, Task, fit
from stablenet.training.losses import LOSSES
from stablenet.training.precision import settle
from stablenet.training.recipe import ClassifierRecipe
from stablenet.training.records import logged

if TYPE_CHECKING:
    from lightning_fabric import Fabric

EPSILONS = (0.0, 36 / 255, 72 / 255, 108 / 255, 0.5, 1.0)


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
    """The network that training begins with; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return Classifier(recipe.sized(dataset.shape, len(dataset.classes)))


def train(
    recipe: ClassifierRecipe,
    dataset: LabeledImages,
    validation: LabeledImages,
    folder: Path,
    *,
    fabric: Fabric | None = None,
    model: nn.Module | None = None,
    data_name: str = "images",
) -> Iterator[tuple[StepReport, nn.Module]]:
    """Train a classifier, yielding (report, averaged classifier) a step; checkpoints and log.csv go to `folder`.

    The batch is that of one process whatever the number of devices: each takes its share of it. `model` replaces the
    network of the recipe by any module with the same call, a `head` and `pairwise_lipschitz()`, for comparisons. `data_name`
    says in messages what `dataset` is.

    Raises
    ------
    ValueError : an architecture or a shift that does not fit the images, a checkpoint of another recipe or of other images,
        a NaN loss.
    """
    if recipe.crop >= min(dataset.shape[1:]):
        raise ValueError(f"crop must be smaller than the images, got {recipe.crop} for {tuple(dataset.shape)}")
    fabric = fabric or fabric_on("auto")
    fabric.launch()
    if recipe.batch_size % fabric.world_size:
        raise ValueError(f"batch_size {recipe.batch_size} cannot be shared by {fabric.world_size} devices: choose a multiple")
    model = initial(recipe, dataset) if model is None else model

    def validate(average: nn.Module) -> dict[str, float]:
        return {f"certified_{round(255 * e)}": v for e, v in evaluate(average, validation).items()}

    task = Task(
        model,
        _objective(recipe, dataset, model, fabric),
        validate,
        recipe,
        fingerprint.take(dataset, data_name),
        folder,
        shared_batches=True,
        half=settle(recipe.precision, fabric.device).half,
    )
    yield from logged(fit(fabric, task), folder, write=fabric.is_global_zero)


def _objective(recipe: ClassifierRecipe, dataset: LabeledImages, model: nn.Module, fabric: Fabric) -> Objective:
    """The loss over this device's share of a batch; `model` is the bare network, for its constants."""
    share, device = slice(fabric.global_rank, None, fabric.world_size), fabric.device
    precision = settle(recipe.precision, device)

    def loss(network: nn.Module, generator: torch.Generator) -> Tensor:
        images, labels = random_batch(dataset, count=recipe.batch_size, crop=recipe.crop, flip=recipe.flip, generator=generator)
        images, labels = images[share].to(device), labels[share].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision.half):
            logits = network(images)
        constants = cast(Classifier, model).head.distances()
        return LOSSES[recipe.loss](logits.float(), labels, constants, offset=recipe.offset, temperature=recipe.temperature)

    return loss
