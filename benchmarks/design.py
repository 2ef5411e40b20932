"""Claim: for one proof and one training budget, spline, clamp and tanh tie, leaky ReLU, Heun and averagedness 0.5 lose.

A tie is less than 0.05 dB to the first row, a loss is more than 0.25 dB. Short runs of one seed tell no smaller differences.

Each variant changes one thing of the first row: the activation, the tableau, how blocks are joined, the averagedness, the
conditioning on the noise level. All train on the same patches at noise 25/255 for --steps steps and are validated on the
first eight images of --validation at 25/255 (image k gets the noise of seed k).

Run: python benchmarks/design.py --train FOLDER ... --validation FOLDER --steps 400
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from report import write
from torch import nn
from torch.utils.data import Dataset, Subset

from stablenet import certify, tableaus
from stablenet.activations import Clamp, LinearSpline
from stablenet.blocks import GradientFlow
from stablenet.enforcement import Rescale
from stablenet.images.photographs import FolderImages
from stablenet.networks import Denoiser, DenoiserArchitecture
from stablenet.training.denoiser import train
from stablenet.training.recipe import DenoiserRecipe
from stablenet.training.schedule import LearningSchedule

LEVEL = 25 / 255
SHAPE = DenoiserArchitecture()
RECIPE = DenoiserRecipe(noise_level=LEVEL)


def with_activation(build: Callable[[], nn.Module], *, log_scale: float = 0.0, bias: bool = False) -> Denoiser:
    """The standard network with another activation; log_scale shifts where its thresholds start."""
    network = Denoiser(SHAPE)
    for k, block in enumerate(network.blocks):
        network.blocks[k] = GradientFlow(block.linear, build(), tableau=SHAPE.tableau, policy=Rescale(), bias=bias)
    with torch.no_grad():
        network.log_scales += log_scale
    return network


def halved(network: Denoiser) -> Denoiser:
    with torch.no_grad():
        network.log_scales -= math.log(2)
    return network


VARIANTS: dict[str, tuple[Callable[[], Denoiser], DenoiserRecipe]] = {
    "spline a feature, 8 Euler blocks, anchored, 0.9": (lambda: Denoiser(SHAPE), RECIPE),
    "one spline a block": (lambda: with_activation(lambda: LinearSpline(1)), RECIPE),
    "clamp, a threshold a feature": (lambda: with_activation(lambda: Clamp(SHAPE.features, threshold=3.0)), RECIPE),
    "tanh, a scale a feature": (lambda: with_activation(nn.Tanh, log_scale=1.1), RECIPE),
    "leaky ReLU (slope 0.1) with bias": (lambda: with_activation(lambda: nn.LeakyReLU(0.1), bias=True), RECIPE),
    "12 segments of half the length": (lambda: halved(Denoiser(replace(SHAPE, segments=12))), RECIPE),
    "4 Heun blocks (equal cost)": (lambda: Denoiser(replace(SHAPE, tableau=tableaus.HEUN, blocks=4)), RECIPE),
    "8 Heun blocks (twice the cost)": (lambda: Denoiser(replace(SHAPE, tableau=tableaus.HEUN)), RECIPE),
    "plain composition, relaxed to 0.9": (lambda: Denoiser(replace(SHAPE, anchored=False)), RECIPE),
    "averagedness 0.5 (firmly nonexpansive)": (lambda: Denoiser(replace(SHAPE, averagedness=0.5)), RECIPE),
    "averagedness 0.98": (lambda: Denoiser(replace(SHAPE, averagedness=0.98)), RECIPE),
    "all noise levels from one network": (lambda: Denoiser(SHAPE), replace(RECIPE, noise_level=None)),
}


def trained(network: Denoiser, recipe: DenoiserRecipe, images: Dataset, held_out: Dataset) -> tuple[Denoiser, float, float]:
    """The averaged weights, their PSNR at 25/255 and the seconds a step took (validation and compilation included)."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        *_, (record, average) = train(recipe, images, held_out, Path(folder), model=network)
    return average.eval(), record.validation["psnr_25"], (time.perf_counter() - start) / recipe.schedule.steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    a = parser.parse_args()
    images = FolderImages(a.train, channels=1)
    held_out = FolderImages([a.validation], channels=1)
    held_out, rows = Subset(held_out, range(min(a.images, len(held_out)))), []
    for name, (build, recipe) in VARIANTS.items():
        torch.manual_seed(0)
        schedule = LearningSchedule(
            a.steps, warmup_steps=a.steps // 10, average_decay=0.995, validate_every=a.steps, checkpoint_every=a.steps
        )
        network, score, spent = trained(build(), replace(recipe, schedule=schedule), images, held_out)
        certificate = certify(network).certificate
        rows.append(
            {
                "variant": name,
                "parameters": sum(p.numel() for p in network.parameters()),
                "averagedness <=": certificate.averagedness,
                "ms a step": 1000 * spent,
                "PSNR at 25/255": f"{score:.2f}",
                "steps": a.steps,
            }
        )
        print(rows[-1], flush=True)
        write("design", rows, a.results, show=name == list(VARIANTS)[-1])


if __name__ == "__main__":
    main()
