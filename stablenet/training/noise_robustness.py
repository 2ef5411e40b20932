"""One backbone trained with and without a block, on clean images, and what noise leaves of their accuracy.

Source: the experiment of [LyuTsang2021], section 5; everything but the block is the same for both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from stablenet.blocks import NOK
from stablenet.images.labeled import LabeledImages
from stablenet.plugging import plug_in
from stablenet.robustness.noise import DEVIATIONS, NOISES, accuracy_under_noise
from stablenet.training.plain import train_plainly

WITHOUT, WITH = "without", "with the block"


@dataclass(frozen=True)
class Comparison:
    """How both networks are trained, and under which noise they are tried.

    seeds : how many, from 0; of the weights, of the batches and of the noise.
    deviations : of the noise, for images in [0, 1].

    Raises
    ------
    ValueError : a number below its least.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 2e-3
    seeds: int = 3
    deviations: tuple[float, ...] = DEVIATIONS

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")


@dataclass(frozen=True)
class Trained:
    """One network of one seed.

    accuracies : by the name of a noise, share of the test images by deviation.
    seconds : of one processor, in training.
    """

    network: str
    seed: int
    parameters: int
    seconds: float
    accuracies: dict[str, dict[float, float]] = field(default_factory=dict)


def compare(
    build: Callable[[], nn.Module],
    block: Callable[[], NOK],
    layer: str,
    train: LabeledImages,
    test: LabeledImages,
    settings: Comparison = Comparison(),  # noqa: B008 - frozen
) -> Iterator[tuple[Trained, nn.Module]]:
    """Train and try one network after the other, each seed without and with the block: both begin with the same weights.

    Parameters
    ----------
    build : a fresh backbone; its weights are drawn by torch's generator, which is seeded here and then put back.
    block : a fresh block, for `plug_in` behind `layer`.
    train, test : clean images.

    Raises
    ------
    ValueError : as `plug_in`, `train_plainly` and `accuracy_under_noise`.
    """
    steps = max(1, settings.epochs * len(train) // settings.batch_size)
    for seed in range(settings.seeds):
        for name in (WITHOUT, WITH):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                network = build()
                if name == WITH:
                    plug_in(network, layer=layer, block=block(), example=test.images[:2].float() / 255)
                began = time.process_time()
                for _ in train_plainly(
                    network,
                    train,
                    steps=steps,
                    generator=torch.Generator().manual_seed(seed),
                    batch_size=settings.batch_size,
                    learning_rate=settings.learning_rate,
                ):
                    pass
                seconds = time.process_time() - began
            found = {
                kind: accuracy_under_noise(network, test, noise, deviations=settings.deviations, seed=seed)
                for kind, noise in NOISES.items()
            }
            yield Trained(name, seed, sum(p.numel() for p in network.parameters()), seconds, found), network


def collected(results: Sequence[Trained], noise: str) -> dict[str, dict[float, list[float]]]:
    """By network, the accuracies at each deviation, one a seed."""
    curves: dict[str, dict[float, list[float]]] = {}
    for result in results:
        for deviation, share in result.accuracies[noise].items():
            curves.setdefault(result.network, {}).setdefault(deviation, []).append(share)
    return curves
