"""Figures: accuracy against epsilon, certified and under attack, and the smallest changes that were found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stablenet.files import aside
from stablenet.robustness.attacks import Attacked


@dataclass(frozen=True, eq=False)
class Curve:
    """An image counts up to its distance: certified radii or distances to the nearest change, of those predicted rightly
    among `count` images. style : matplotlib's, "-" or "--"."""

    distances: Tensor
    count: int
    style: str = "-"
    color: str = "C0"


def accuracy_curves(curves: Mapping[str, Curve], path: Path, *, largest: float | None = None) -> None:
    """Accuracy in % against epsilon, one line an entry, as a PNG; `largest` ends the axis of epsilon."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    finite = torch.cat([c.distances[c.distances.isfinite()].double() for c in curves.values()])
    end = largest or (float(finite.max()) if len(finite) else 1.0)
    for name, curve in curves.items():
        distances = curve.distances.sort().values
        steps = [0.0, *distances[distances < end].tolist(), end]
        heights = [100 * (len(distances) - k) / curve.count for k in range(len(steps) - 1)]
        axes.step(steps, [*heights, heights[-1]], where="post", linestyle=curve.style, color=curve.color, label=name)
    axes.set(xlabel="epsilon (l2 distance, images in [0, 1])", ylabel="accuracy in %", ylim=(0, 100), xlim=(0, end))
    axes.grid(alpha=0.3)
    if len(curves) > 2:
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        figure.set_figheight(4.2 + 0.2 * -(-len(curves) // 2))
    elif len(curves) > 1:
        axes.legend()
    with aside(path) as temporary:
        figure.savefig(temporary, dpi=150)


def smallest_changes(found: Mapping[str, Attacked], images: Tensor, classes: tuple[str, ...], path: Path) -> None:
    """The images (count, channels, height, width) in [0, 1] in a first row; below, for each entry of `found` (of the same
    images), the nearest image with another class and, magnified, what was added to it."""
    from matplotlib.figure import Figure

    count, rows = len(images), 1 + 2 * len(found)
    figure = Figure(figsize=(1.25 * count + 0.6, 1.55 * rows), layout="constrained")
    grid = figure.subplots(rows, count, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    truth = next(iter(found.values())).labels
    for k in range(count):
        _show(grid[0][k], images[k], classes[int(truth[k])])
    grid[0][0].set_ylabel("image", fontsize=8)
    for row, (name, attacked) in enumerate(found.items()):
        upper, lower = grid[1 + 2 * row], grid[2 + 2 * row]
        for k in range(count):
            change, distance = attacked.nearest[k].float() - images[k], float(attacked.distances[k])
            if distance < float("inf"):
                old, new = (classes[int(c[k])] for c in (attacked.predictions, attacked.changed))
                _show(upper[k], attacked.nearest[k], f"{old} to {new}\nat {distance:.3f}")
                factor = 0.5 / float(change.abs().max().clamp_min(1e-6))
                _show(lower[k], change * factor + 0.5, f"change x {factor:.3g}")
        upper[0].set_ylabel(name, fontsize=8)
    with aside(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _show(axes: Any, image: Tensor, title: str) -> None:
    pixels = image.float().clamp(0, 1).permute(1, 2, 0).numpy()
    axes.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=7)
