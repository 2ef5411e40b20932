"""`stablenet noise-robustness`: a backbone trained with and without a block on clean images, tried under noise."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from stablenet import proximal
from stablenet.blocks import NOK
from stablenet.files import together
from stablenet.images.labeled import LabeledImages
from stablenet.images.sources import LabeledSource
from stablenet.linear import frames
from stablenet.linear.frames.pointwise import VectorFrame

FRAMES = {"dft": frames.DFT, "hadamard": frames.Hadamard, "dct": frames.DCT, "haar": frames.Haar}
HELD_OUT = 5
"""Of the images that ship, which have no test images, one in so many is held out, at random."""


@dataclass(frozen=True)
class NoiseRobustness:
    """Train a small network with and without a NOK block on clean images, and print and plot accuracy against noise."""

    images: tyro.conf.OmitArgPrefixes[LabeledSource] = LabeledSource()
    backbone: Literal["mlp", "cnn"] = "mlp"
    place: Literal["input", "hidden"] = "hidden"
    """Where the block stands: on the image, with the frame of all cosines of a window, or on the first hidden features."""
    window: int = 4
    """Side of the cosines at the input."""
    frame: Literal["dft", "hadamard", "dct", "haar"] = "dft"
    """At the hidden features."""
    frame_size: int = 256
    """Of that frame."""
    prox: Literal["relu", "soft"] = "soft"
    weight: float = 0.1
    """The threshold of `soft`."""
    steps: int = 5
    scale: float = 1.0
    """c in (0, 1]: the proximal map is scaled by it; nonexpansive at every depth up to 0.7747."""
    epochs: int = 10
    learning_rate: float = 2e-3
    seeds: int = 3
    """How many: mean, worst and best are printed."""
    deviations: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3)
    """Of the noise, for images in [0, 1]; it is not clipped."""
    count: int | None = None
    """How many of the training images (the first) to take; none: all."""
    output: Path = Path("noise-robustness")
    """Where noise_robustness.json, gaussian.png and laplace.png go."""

    def run(self) -> None:
        """Print one line a network and noise."""
        from stablenet.robustness.noise import NOISES, draw_accuracies
        from stablenet.training.backbones import BACKBONES
        from stablenet.training.noise_robustness import Comparison, collected, compare

        settings = Comparison(self.epochs, learning_rate=self.learning_rate, seeds=self.seeds, deviations=self.deviations)
        backbone = BACKBONES[self.backbone]
        self._block(1, backbone.features)  # what is out of range is refused before anything is read
        train, test = self._read()
        shape, classes = train.shape, len(train.classes)
        results = []
        for trained, _ in compare(
            lambda: backbone.build(shape, classes),
            lambda: self._block(shape[0], backbone.features),
            backbone.places[self.place],
            train,
            test,
            settings,
        ):
            results.append(trained)
            at = ", ".join(f"{100 * share:.1f} % at {d:g}" for d, share in trained.accuracies["gaussian"].items())
            print(f"seed {trained.seed}, {trained.network} ({trained.seconds:.1f} s): {at}", flush=True)
        paths = [self.output / f"{noise}.png" for noise in NOISES]
        with together(self.output / "noise_robustness.json", *paths) as (table, *figures):
            held = {"data": str(self.images), "train": len(train), "test": len(test), "settings": asdict(self)}
            rows = [asdict(trained) for trained in results]
            table.write_text(json.dumps({**held, "results": rows}, indent=2, default=str))
            for noise, figure in zip(NOISES, figures, strict=True):
                curves = collected(results, noise)
                draw_accuracies(curves, figure, noise=noise)
                _print(noise, curves)
        print(f"wrote noise_robustness.json, {' and '.join(path.name for path in paths)} to {self.output}")

    def _block(self, channels: int, features: int) -> NOK:
        prox = proximal.SoftThreshold(self.weight) if self.prox == "soft" else proximal.Nonnegative()
        if self.place == "input":
            return NOK(frames.Cosines(channels, self.window), prox, steps=self.steps, scale=self.scale)
        frame: VectorFrame = FRAMES[self.frame](features, self.frame_size)
        return NOK(frame, prox, steps=self.steps, scale=self.scale)

    def _read(self) -> tuple[LabeledImages, LabeledImages]:
        """Training and test images."""
        train = self.images.read(train=True, channels=3)
        if self.images.data is None and self.images.dataset is None:
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
            mixed = LabeledImages(train.images[order], train.labels[order], train.classes)
            test, train = mixed.part(0, len(mixed) // HELD_OUT), mixed.part(len(mixed) // HELD_OUT, None)
        else:
            test = self.images.read(train=False, channels=3)
        if self.count is not None and self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")
        return train.part(0, self.count), test


def _print(noise: str, curves: dict[str, dict[float, list[float]]]) -> None:
    """The mean over the seeds in %, and from the worst to the best."""
    for name, curve in curves.items():
        for deviation, shares in curve.items():
            mean = sum(shares) / len(shares)
            low, high = min(shares), max(shares)
            print(f"{noise} {deviation:g}, {name}: {100 * mean:.1f} % ({100 * low:.1f} to {100 * high:.1f})")
