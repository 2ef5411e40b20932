"""`stablenet attack`: the smallest changes that are found to change a class, held against the certified radii."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from stablenet.cli.options import Common, classifier_and_images, print_shares
from stablenet.images.sources import LabeledSource
from stablenet.robustness.attacks import Attack, AutoAttackPart


@dataclass(frozen=True)
class AttackCommand(Common):
    """Look for the smallest change of each image that changes its class, and hold it against the certified radius."""

    images: tyro.conf.OmitArgPrefixes[LabeledSource] = LabeledSource()
    count: int = 200
    """How many of the images (the first) to attack."""
    output: Path = Path("attacked")
    """Where attacked.csv, one row an image, attacked_accuracy.png and smallest_changes.png go."""
    epsilons: tuple[float, ...] = (36 / 255, 72 / 255, 108 / 255, 0.5, 1.0)
    """l2 distances for images in [0, 1] at which to attack."""
    steps: int = 40
    restarts: int = 2
    """Of projected gradient descent."""
    autoattack: tuple[AutoAttackPart, ...] = ()
    """Parts of AutoAttack to run too; all four are its standard version, and take hours for 500 images on a CPU."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")

    def run(self) -> None:
        """Attack, and print what is left of the accuracy."""
        from stablenet.robustness.report import write_attack

        settings = Attack(self.epsilons, self.steps, self.restarts, self.autoattack, seed=self.seed)
        network, images = classifier_and_images(self, self.images)
        images = images.part(None, self.count)
        found = write_attack(network, images, settings, self.output)
        print_shares(found.accuracy((0.0, *self.epsilons)), "accuracy under attack", len(images))
        print(f"no image was changed within its certified radius; wrote attacked.csv and figures to {self.output}")
