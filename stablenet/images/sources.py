"""Where labeled images come from, as commands ask for them: idx files, class folders, torchvision's sets, the bundled ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stablenet.bundled import data_path
from stablenet.images.labeled import LabeledImages, class_folders, idx_folder, torchvision_set


@dataclass(frozen=True)
class LabeledSource:
    """Where labeled images are read from."""

    data: Path | None = None
    """A folder of idx files (train-*, t10k-*), of one folder a class, or where torchvision keeps `dataset`; none: the 10,000
    Fashion-MNIST training images that ship with the package."""
    dataset: str | None = None
    """CIFAR10, CIFAR100, MNIST or FashionMNIST, as torchvision keeps them below `data`."""
    download: bool = False
    """Fetch `dataset` if it is not there (needs a network)."""
    size: int | None = None
    """Side in pixels to which images from class folders are cropped and resized; none: they must have one size."""

    @property
    def has_test(self) -> bool:
        """Whether the test images are known to stand beside the training images."""
        return self.dataset is not None

    @property
    def is_shuffled(self) -> bool:
        """Whether the images stand in a random order already."""
        return self.dataset is None and self.data is None

    def read(self, *, train: bool, channels: int) -> LabeledImages:
        """The training or the test images; `channels`, 1 or 3, of those read from class folders.

        Raises
        ------
        ValueError : the folder is missing or holds no such images, or what it holds cannot be read.
        """
        if self.dataset is not None:
            root = Path("datasets") if self.data is None else self.data
            return torchvision_set(self.dataset, root, train=train, download=self.download)
        if self.data is None:
            return idx_folder(data_path("fashion-mnist/train-images-idx3-ubyte.gz").parent)
        if self.data.is_dir() and any(self.data.glob("*-ubyte*")):
            return idx_folder(self.data, train=train)
        return class_folders(self.data, size=self.size, channels=channels)

    def __str__(self) -> str:
        if self.dataset is not None:
            return self.dataset
        return "the bundled Fashion-MNIST images" if self.data is None else "/".join(self.data.resolve().parts[-2:])
