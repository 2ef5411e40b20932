"""What certification found on a set of images, as a table of one row an image and a figure of certified accuracy.

Source: docs/theorems.md, R1.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from stablenet.labeled import LabeledImages
from stablenet.networks.classifier import Classifier
from stablenet.robustness.certification import certified_accuracy, certified_radius


@torch.inference_mode()
def logits_of(network: nn.Module, images: LabeledImages, *, batch_size: int = 256) -> Tensor:
    """(count, classes) float32 on the CPU, in the order of the images."""
    device = next(network.parameters()).device
    parts = images.images.split(batch_size)
    return torch.cat([network((part.float() / 255).to(device)).float().cpu() for part in parts])


def certified(network: Classifier, images: LabeledImages) -> tuple[Tensor, Tensor]:
    """(predicted classes, certified l2 radii), one an image.

    Raises
    ------
    ValueError : images of another shape than the network's, or labels beyond its classes.
    """
    highest, classes = int(images.labels.max()), network.architecture.classes
    if highest >= classes:
        raise ValueError(f"labels go up to {highest}, but the network has {classes} classes, 0 to {classes - 1}")
    logits = logits_of(network, images)
    return logits.argmax(1), certified_radius(logits, network.pairwise_lipschitz())


def write_report(network: Classifier, images: LabeledImages, folder: Path, epsilons: Sequence[float]) -> dict[float, float]:
    """Certified accuracy at each epsilon; writes radii.csv (index, label, prediction, radius) and certified_accuracy.png."""
    predictions, radii = certified(network, images)
    table = certified_accuracy(radii, predictions, images.labels, epsilons)
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".radii.{os.getpid()}.tmp"
    with aside.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "label", "prediction", "certified_radius"])
        rows = zip(images.labels.tolist(), predictions.tolist(), radii.tolist(), strict=True)
        writer.writerows((k, label, prediction, f"{radius:.9g}") for k, (label, prediction, radius) in enumerate(rows))
    os.replace(aside, folder / "radii.csv")
    right = predictions == images.labels
    draw(radii[right].sort().values, len(images), folder / "certified_accuracy.png")
    return table


def draw(radii: Tensor, count: int, path: Path) -> None:
    """Certified accuracy against epsilon: the sorted radii of the rightly predicted among `count` images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    shares = 100 * torch.arange(len(radii), 0, -1) / count
    axes.step([0.0, *radii.tolist()], [100 * len(radii) / count, *shares.tolist()], where="pre")
    axes.set(xlabel="epsilon, l2 distance for images in [0, 1]", ylabel="certified accuracy in %", ylim=(0, 100))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
