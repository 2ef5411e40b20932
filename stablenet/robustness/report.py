"""What certification and attacks found on a set of images, as a table of one row an image and figures.

Source: docs/theorems.md, R1.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from stablenet.files import aside
from stablenet.images.labeled import LabeledImages
from stablenet.networks.classifier import Classifier
from stablenet.robustness.attacks import Attack, Attacked, attack
from stablenet.robustness.certification import certified_accuracy, certified_predictions, certified_radius
from stablenet.robustness.figures import Curve, accuracy_curves, smallest_changes

SHOWN = 8


@torch.inference_mode()
def logits_of(network: nn.Module, images: LabeledImages, *, batch_size: int = 256) -> Tensor:
    """(count, classes) float32 on the CPU, in the order of the images."""
    device = next(network.parameters()).device
    parts = images.images.split(batch_size)
    return torch.cat([network((part.float() / 255).to(device)).float().cpu() for part in parts])


def certified(network: nn.Module, images: LabeledImages) -> tuple[Tensor, Tensor]:
    """(predicted classes, certified l2 radii), one an image, of a `Classifier` or what else has `pairwise_lipschitz()`.

    In float64, less what rounding does (`certification.certified_predictions`): several times as long as a float32 pass.

    Raises
    ------
    ValueError : images of another shape than the network's, or labels beyond its classes.
    """
    _require_classes(cast(Classifier, network).pairwise_lipschitz(), images)
    return certified_predictions(network, images.images.float() / 255)


def certified_quickly(network: nn.Module, images: LabeledImages) -> tuple[Tensor, Tensor]:
    """As `certified`, from logits in the network's own precision and an allowance for their rounding: to validate with."""
    constants = cast(Classifier, network).pairwise_lipschitz()
    _require_classes(constants, images)
    logits = logits_of(network, images)
    return logits.argmax(1), certified_radius(logits, constants)


def _require_classes(constants: Tensor, images: LabeledImages) -> None:
    highest = int(images.labels.max())
    if highest >= len(constants):
        raise ValueError(f"labels go up to {highest}, but the network has {len(constants)} classes, 0 to {len(constants) - 1}")


def write_report(network: Classifier, images: LabeledImages, folder: Path, epsilons: Sequence[float]) -> dict[float, float]:
    """Certified accuracy at each epsilon; writes radii.csv (index, label, prediction, radius) and certified_accuracy.png."""
    predictions, radii = certified(network, images)
    table = certified_accuracy(radii, predictions, images.labels, epsilons)
    columns = {"label": images.labels, "prediction": predictions, "certified_radius": radii}
    _write_table(folder / "radii.csv", columns)
    right = predictions == images.labels
    accuracy_curves({"certified": Curve(radii[right], len(images))}, folder / "certified_accuracy.png")
    return table


def write_attack(network: Classifier, images: LabeledImages, settings: Attack, folder: Path) -> Attacked:
    """Attack, hold every distance against its certified radius; write attacked.csv, attacked_accuracy.png (with the
    certified curve below it) and smallest_changes.png.

    Raises
    ------
    CertificateViolated : a distance below its certified radius (nothing is then written).
    ValueError : as from `certified` and `attack`.
    """
    _, radii = certified(network, images)
    found = attack(network, images, settings, radii=radii)
    columns = {"label": images.labels, "prediction": found.predictions, "certified_radius": radii, "distance": found.distances}
    _write_table(folder / "attacked.csv", {**columns, "found_by": found.found_by})
    certified_curve = Curve(radii[found.right], len(images))
    attacked_curve = Curve(found.distances[found.right], len(images), "--")
    end = max(1.0, *settings.epsilons)
    curves = {"certified": certified_curve, "under attack": attacked_curve}
    accuracy_curves(curves, folder / "attacked_accuracy.png", largest=end)
    shown = images.part(None, SHOWN)
    smallest_changes(
        {"changed": found.part(None, SHOWN)}, shown.images.float() / 255, shown.classes, folder / "smallest_changes.png"
    )
    return found


def _write_table(path: Path, columns: Mapping[str, Tensor | tuple[str, ...]]) -> None:
    """One row an image, beginning with its index."""
    lists = [values.tolist() if isinstance(values, Tensor) else values for values in columns.values()]
    with aside(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", *columns])
        for index, row in enumerate(zip(*lists, strict=True)):
            writer.writerow([index, *(f"{value:.9g}" if isinstance(value, float) else value for value in row)])
