"""Accuracy under noise on the input: how many images keep their class as the noise grows.

Source: the protocol of [LyuTsang2021], networks trained on clean images, Gaussian and Laplace noise of equal deviations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from stablenet.files import aside
from stablenet.images.labeled import LabeledImages

DEVIATIONS = (0.0, 0.1, 0.2, 0.3)
"""Of the noise, for images in [0, 1]."""


class Noise(Protocol):
    """Independent noise of mean 0 and deviation 1, of the images' shape."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor: ...


def gaussian(images: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise."""
    return torch.randn(images.shape, generator=generator, dtype=images.dtype)


def laplace(images: Tensor, generator: torch.Generator) -> Tensor:
    """Density exp(-sqrt(2) |e|)/sqrt(2): the difference of two exponential variables of deviation 1/sqrt(2)."""
    pair = torch.empty((2, *images.shape), dtype=images.dtype).exponential_(math.sqrt(2), generator=generator)
    return pair[0] - pair[1]


NOISES: dict[str, Noise] = {"gaussian": gaussian, "laplace": laplace}


@torch.no_grad()
def accuracy_under_noise(
    network: nn.Module,
    images: LabeledImages,
    noise: Noise = gaussian,
    *,
    deviations: Sequence[float] = DEVIATIONS,
    seed: int = 0,
    batch_size: int = 256,
) -> dict[float, float]:
    """The share of images that a network classifies rightly at each deviation, noise added and not clipped.

    Parameters
    ----------
    network : (batch, channels, height, width) in [0, 1] to logits; run in the mode in which it is.
    noise : `gaussian`, `laplace` or another of deviation 1.
    deviations : finite, at least 0, for images in [0, 1].
    seed : of the noise, the same for every network and deviation.

    Raises
    ------
    ValueError : a deviation out of range.
    """
    wrong = [deviation for deviation in deviations if not (0 <= deviation < math.inf)]
    if wrong or not deviations:
        raise ValueError(f"deviations must be finite, at least 0, for images in [0, 1], got {wrong or 'none'}")
    tensor = next(network.parameters(), images.images.float())
    right = dict.fromkeys(deviations, 0)
    generator = torch.Generator().manual_seed(seed)
    parts = zip(images.images.split(batch_size), images.labels.split(batch_size), strict=True)
    for part, labels in parts:
        clean = part.float() / 255
        added = noise(clean, generator)
        for deviation in deviations:
            logits = network((clean + deviation * added).to(tensor))
            right[deviation] += int((logits.argmax(1).cpu() == labels).sum())
    return {deviation: count / len(images) for deviation, count in right.items()}


def draw_accuracies(curves: Mapping[str, Mapping[float, Sequence[float]]], path: Path, *, noise: str) -> None:
    """Accuracy in % against the deviation, a line a network, as a PNG: the mean over seeds, and from the worst to the best.

    curves : by the name of a network, deviation to accuracies, one a seed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for k, (name, curve) in enumerate(curves.items()):
        deviations = sorted(curve)
        shares = [[100 * value for value in curve[deviation]] for deviation in deviations]
        axes.plot(deviations, [sum(s) / len(s) for s in shares], color=f"C{k}", marker="o", markersize=4, label=name)
        axes.fill_between(deviations, list(map(min, shares)), list(map(max, shares)), color=f"C{k}", alpha=0.15, linewidth=0)
    axes.set(xlabel=f"standard deviation of {noise} noise (images in [0, 1])", ylabel="accuracy in %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with aside(path) as temporary:
        figure.savefig(temporary, dpi=150)
