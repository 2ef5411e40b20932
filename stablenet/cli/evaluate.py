"""`stablenet evaluate`: the PSNR of a denoiser over a folder, at the noise levels of the README's table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from stablenet.certificate import certify
from stablenet.cli.options import Common


@dataclass(frozen=True)
class Evaluate(Common):
    """Mean PSNR of a denoiser over a folder of images at given noise levels: without options, a row of the README's table."""

    images: tyro.conf.Positional[Path]
    """A folder of images."""
    noise_levels: tuple[float, ...] = (5 / 255, 15 / 255, 25 / 255, 40 / 255)
    """Standard deviations for images in [0, 1]."""
    seeds: int = 1
    """How many noise seeds to average over: 0, 1000, 2000, ..."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")

    def run(self) -> None:
        """Print one line a noise level."""
        from stablenet.evaluation import evaluate
        from stablenet.images.photographs import FolderImages
        from stablenet.networks import Guided

        network = self.network(kind="denoiser")
        images = FolderImages([self.images], channels=network.channels)
        print(certify(network).certificate)
        if type(network) is Guided:
            print("with the guide held fixed; here each estimate is its own guide, of which map no theorem speaks")
        tables = [evaluate(network, images, self.noise_levels, seed=1000 * k) for k in range(self.seeds)]
        for level in self.noise_levels:
            mean = sum(table[level] for table in tables) / len(tables)
            print(f"noise {level:.4f} ({255 * level:.0f}/255): PSNR {mean:.3f} dB over {len(images)} images")
