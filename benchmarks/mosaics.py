"""CIFAR-10 from a folder of lossless mosaics: cifar10_NN.webp, 25 x 40 tiles of 32 x 32 pixels, and labels.npy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stablenet.images.labeled import LabeledImages

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TILES, SIDE = (25, 40), 32
EACH = TILES[0] * TILES[1]


def cifar10(root: Path, start: int, stop: int) -> LabeledImages:
    """Mosaics start ... stop - 1, 1,000 images each, in the official order.

    Raises
    ------
    ValueError : labels.npy or a mosaic is missing, or a mosaic has another size.
    """
    if not (root / "labels.npy").is_file():
        raise ValueError(f"no labels.npy in {root}: give the folder of the mosaics")
    labels = np.load(root / "labels.npy", allow_pickle=False)[EACH * start : EACH * stop].astype(np.int64)
    images = np.concatenate([_tiles(root / f"cifar10_{k:02d}.webp") for k in range(start, stop)])
    return LabeledImages(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels), CLASSES)


@dataclass(frozen=True)
class Mosaics:
    """As `LabeledSource`: mosaics 00 to 44 to train on; 45 to 49, held-out training images, to test on."""

    folder: Path
    has_test = True

    def read(self, *, train: bool, channels: int = 3) -> LabeledImages:
        return cifar10(self.folder, 0, 45) if train else cifar10(self.folder, 45, 50)

    def __str__(self) -> str:
        return "CIFAR-10, training images 0 to 44,999; validated on 45,000 to 49,999"


def _tiles(path: Path) -> np.ndarray:
    """(1000, 32, 32, 3) uint8."""
    if not path.is_file():
        raise ValueError(f"no mosaic at {path}")
    mosaic = np.asarray(Image.open(path).convert("RGB"))
    rows, columns = TILES
    if mosaic.shape != (rows * SIDE, columns * SIDE, 3):
        raise ValueError(f"{path} is {mosaic.shape}, expected {(rows * SIDE, columns * SIDE, 3)}")
    return mosaic.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2).reshape(EACH, SIDE, SIDE, 3)
