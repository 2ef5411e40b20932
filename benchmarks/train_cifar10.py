"""The recipe of `classifier-cifar10`, from a folder of mosaics: python benchmarks/train_cifar10.py FOLDER.

A killed run continues from its last checkpoint. The weights and their card go to runs/cifar10, or to --output.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from classification import RECIPES
from mosaics import Mosaics

from stablenet.cli.train import TrainClassifier
from stablenet.training.recipe import SCHEDULE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--output", type=Path, default=Path("runs/cifar10"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    schedule = replace(SCHEDULE, steps=a.steps, warmup_steps=a.steps // 20, average_decay=0.999, validate_every=1000)
    recipe = replace(RECIPES["cifar10"], schedule=schedule)
    print(TrainClassifier(images=Mosaics(a.folder), output=a.output, name="classifier-cifar10", recipe=recipe).run())


if __name__ == "__main__":
    main()
