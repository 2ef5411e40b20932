"""Images with class labels, held in memory: idx files, a folder a class, torchvision's sets, and what ships in data/.

Source: the idx format is that of MNIST [LeCun1998]; Fashion-MNIST [Xiao2017] ships under the MIT license.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stablenet.images.photographs import SUFFIXES, as_bytes
from stablenet.images.reading import read_image

FASHION = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
TORCHVISION = ("CIFAR10", "CIFAR100", "MNIST", "FashionMNIST")


@dataclass(frozen=True, eq=False)
class LabeledImages(Dataset[tuple[Tensor, int]]):
    """uint8 images (count, channels, height, width) with labels (count,) in 0 ... len(classes) - 1; item k is a pair.

    Raises
    ------
    ValueError : no image, images of another dtype or shape, as many labels as images missing, labels outside the classes.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4 or not images.numel():
            raise ValueError(
                "images must be uint8 of shape (count, channels, height, width), not empty; got "
                f"{images.dtype} {tuple(images.shape)}"
            )
        if labels.shape != (len(images),) or labels.dtype.is_floating_point:
            raise ValueError(f"{len(images)} images need as many integer labels, got {labels.dtype} {tuple(labels.shape)}")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(self.classes):
            raise ValueError(f"labels must lie in 0 to {len(self.classes) - 1}, one a class; got {low} to {high}")
        object.__setattr__(self, "labels", labels.long())

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def part(self, start: int | None, stop: int | None) -> LabeledImages:
        """Images start ... stop - 1, as a slice."""
        return LabeledImages(self.images[start:stop], self.labels[start:stop], self.classes)


def read_idx(path: Path) -> np.ndarray:
    """The array in an idx file of unsigned bytes, plain or .gz.

    Raises
    ------
    ValueError : the file is missing, is no such file, or holds fewer bytes than its header says.
    """
    if not path.is_file():
        raise ValueError(f"no idx file at {path}: give an existing one")
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read ({error}): fetch it again") from None
    axes = content[3] if len(content) >= 4 else 0
    if content[:3] != b"\x00\x00\x08" or not 1 <= axes <= 4 or len(content) < 4 + 4 * axes:
        raise ValueError(f"{path} is no idx file of unsigned bytes: it begins with {content[:4]!r}")
    shape = np.frombuffer(content, ">u4", axes, 4).astype(int)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if len(values) != shape.prod():
        raise ValueError(f"{path} is damaged: its header says {shape.prod()} values, it holds {len(values)}")
    return values.reshape(shape)


def idx_folder(folder: Path, *, train: bool = True, classes: tuple[str, ...] = FASHION) -> LabeledImages:
    """The training or test images of a folder with MNIST's file names (train-*, t10k-*, .gz or not).

    Raises
    ------
    ValueError : the files are missing or damaged, or do not belong together.
    """
    arrays = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        name = f"{'train' if train else 't10k'}-{kind}"
        found = [p for p in (folder / f"{name}.gz", folder / name) if p.is_file()]
        arrays.append(torch.from_numpy(read_idx(found[0] if found else folder / f"{name}.gz").copy()))
    images, labels = arrays
    return LabeledImages(images[:, None] if images.ndim == 3 else images, labels, classes)


def class_folders(root: Path, *, size: int | None = None, channels: int = 3) -> LabeledImages:
    """A folder a class below `root`, named as the class; images are cropped to squares and resized to `size` if given.

    Raises
    ------
    ValueError : no class folder, a class without images, an unreadable image, or images of different sizes and no `size`.
    """
    if not root.is_dir():
        raise ValueError(f"no folder of classes at {root}: give an existing folder")
    classes = tuple(sorted(p.name for p in root.iterdir() if p.is_dir()))
    if len(classes) < 2:
        raise ValueError(f"{root} holds {len(classes)} class folders: expected one folder of images a class, two or more")
    images, labels = [], []
    for label, name in enumerate(classes):
        paths = sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not paths:
            raise ValueError(f"the class folder {root / name} holds no image: expected files ending in {', '.join(SUFFIXES)}")
        for path in paths:
            images.append(as_bytes(read_image(path), channels, size))
            if images[-1].shape != images[0].shape:
                found, first = tuple(images[-1].shape[1:]), tuple(images[0].shape[1:])
                raise ValueError(f"{path} is {found[0]} x {found[1]}, the first image {first[0]} x {first[1]}: give a size")
            labels.append(label)
    return LabeledImages(torch.stack(images), torch.tensor(labels), classes)


def torchvision_set(name: str, root: Path, *, train: bool = True, download: bool = False) -> LabeledImages:
    """CIFAR10, CIFAR100, MNIST or FashionMNIST as torchvision reads them.

    Raises
    ------
    ValueError : an unknown name, or the files are not below `root` (download=True fetches them where there is a network).
    """
    if name not in TORCHVISION:
        raise ValueError(f"unknown set {name!r}: known are {', '.join(TORCHVISION)}")
    import torchvision

    try:
        dataset = getattr(torchvision.datasets, name)(str(root), train=train, download=download)
    except RuntimeError as error:
        raise ValueError(f"{name} is not at {root} ({error}): download it, or give the folder that holds it") from None
    images = torch.as_tensor(dataset.data)
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return LabeledImages(images, torch.as_tensor(dataset.targets), tuple(map(str, dataset.classes)))
