"""What trainings of potentials share: photographs, batches that are visited again from where their solutions stood, averages.

Source: a proximal map moves little when weights do, so that a batch's last one is where its next begins.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from stablenet.images.photographs import FolderImages, as_image
from stablenet.images.quality import psnr

LEVELS = (5, 15, 25, 40)


@dataclass
class Batch:
    """Patches in [0, 1], their noise levels, and what was found of them: images and directions by name."""

    clean: Tensor
    noisy: Tensor
    levels: Tensor
    visits: int = 0
    found: dict[str, Tensor] = field(default_factory=dict)


class Photographs:
    """Training and validation images in one place: `patches` draws, `scores` is mean PSNR on six crops at four levels."""

    def __init__(self, root: Path, channels: int, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        training = FolderImages([root / "train", root / "test"], channels=channels, exclude=("12003.jpg",))
        self.images = [as_image(image, channels) for image in training]
        crops = [
            as_image(image, channels)[:, 80:240, 100:260] for image in list(FolderImages([root / "val"], channels=channels))[:6]
        ]
        self.crops = torch.stack(crops).float() / 255

    def chance(self, share: float = 0.5) -> bool:
        return bool(torch.rand((), generator=self.generator) < share)

    def patches(self, count: int, size: int, largest: float) -> Batch:
        """Turned and flipped at random, one noise level from each of `count` equal parts of [0, largest]."""
        found = []
        for _ in range(count):
            image = self.images[int(torch.randint(len(self.images), (1,), generator=self.generator))]
            top, left = (int(torch.randint(n - size + 1, (1,), generator=self.generator)) for n in image.shape[-2:])
            patch = image[:, top : top + size, left : left + size].float() / 255
            patch = patch.transpose(1, 2) if self.chance() else patch
            patch = patch.flip(-1) if self.chance() else patch
            found.append(patch.flip(-2) if self.chance() else patch)
        clean = torch.stack(found)
        levels = largest * (torch.rand(count, generator=self.generator) + torch.arange(count)) / count
        noise = torch.randn(clean.shape, generator=self.generator)
        return Batch(clean, clean + levels[:, None, None, None] * noise, levels)

    def noisy_crops(self, level: int) -> Tensor:
        noise = torch.randn(self.crops.shape, generator=torch.Generator().manual_seed(level))
        return self.crops + level / 255 * noise

    def score(self, restored: Tensor) -> float:
        return sum(psnr(a, b) for a, b in zip(restored, self.crops, strict=True)) / len(restored)


@dataclass(frozen=True)
class Step:
    """One step: which batch, the learning rate as a share of the first, and whether it is time to look."""

    index: int
    batch: Batch
    rate: float
    looks: bool


def steps(a: argparse.Namespace, draw: Callable[[], Batch]) -> Iterator[Step]:
    """Until a.minutes of processor time are over: batches in turn, each `visits` times; warm-up, then a cosine to 1 %."""
    batches: list[Batch] = []
    began = looked = time.process_time()
    index, share = 0, 0.0
    while share < 1:
        place = index % a.pool
        if index < a.pool:
            batches.append(draw())
            batches[place].visits = index % a.visits  # so that not all are renewed at once
        elif batches[place].visits >= a.visits:
            batches[place] = draw()
        batches[place].visits += 1
        rate = min(1.0, (index + 1) / a.warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
        now = time.process_time()
        looks = now - looked >= 60 * a.look_every
        looked = now if looks else looked
        yield Step(index, batches[place], rate, looks)
        index, share = index + 1, (time.process_time() - began) / 60 / a.minutes


@torch.no_grad()
def averaged(average: nn.Module, network: nn.Module, index: int, decay: float) -> None:
    """average <- decay average + (1 - decay) network, faster at first."""
    kept = min(decay, (index + 1) / (index + 11))
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - kept)


def options(description: str, *, minutes: float, rate: float, pool: int, visits: int, decay: float) -> argparse.ArgumentParser:
    """Flags that both trainings have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, help="BSDS500: folders train, test and val")
    parser.add_argument("output", type=Path, help="PATH.safetensors with PATH.json, written anew at each look")
    parser.add_argument("--minutes", type=float, default=minutes, help="of processor time")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--pool", type=int, default=pool, help="batches at work")
    parser.add_argument("--visits", type=int, default=visits, help="of a batch")
    parser.add_argument("--decay", type=float, default=decay, help="of the average")
    parser.add_argument("--look-every", type=float, default=3.0, help="minutes between validations")
    parser.add_argument("--seed", type=int, default=0)
    return parser
