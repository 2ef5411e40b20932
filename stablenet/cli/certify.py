"""`stablenet certify`: the certificate of a network as a tree; with images, the radius of each prediction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from stablenet import potential
from stablenet.certificate import certify
from stablenet.cli.options import Common, classifier_and_images, print_shares
from stablenet.images.sources import LabeledSource


@dataclass(frozen=True)
class Certify(Common):
    """Print the certificate of a network as a tree and the curvature of its potential, if it has one, computed from its
    weights; with images, the radius of each prediction."""

    images: tyro.conf.OmitArgPrefixes[LabeledSource] = LabeledSource()
    """For a classifier: labeled images."""
    output: Path = Path("certified")
    """Where radii.csv, one row an image, and certified_accuracy.png go."""
    epsilons: tuple[float, ...] = (0.0, 36 / 255, 72 / 255, 108 / 255, 0.5, 1.0)
    """l2 distances for images in [0, 1] at which certified accuracy is printed; 0 gives the clean accuracy."""

    def run(self) -> None:
        """Print the tree; with images write radii and the curve of certified accuracy."""
        if self.images == LabeledSource():
            network = self.network()
            print(certify(network))
            if potential.rule.covers(network):
                print(potential.certify(network))
            return
        from stablenet.robustness.report import write_report
        from stablenet.robustness.slack import slack_of

        network, images = classifier_and_images(self, self.images)
        print(certify(network))
        print(slack_of(network, images))
        print_shares(write_report(network, images, self.output, self.epsilons), "certified", len(images))
        print(f"wrote {self.output / 'radii.csv'} and {self.output / 'certified_accuracy.png'}")
