"""Photographs as datasets of tensors in [0, 1], and patches with noise drawn reproducibly from (seed, step).

Source: the noise model is y = x + sigma n, n standard normal, unclipped, sigma for images in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stablenet.images.decoding import InputError
from stablenet.images.reading import Photograph, read_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
BUNDLED = ("astronaut", "coffee", "chelsea", "rocket", "camera", "moon", "brick", "grass", "gravel", "coins")


class Items(Protocol):
    """A dataset of known length; an item is an image or a tuple that starts with one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


def _to_channels(image: Tensor, channels: int) -> Tensor:
    """(c, height, width) to gray (ITU-R 601 luma) or color; an alpha channel is dropped."""
    if image.ndim == 2:
        image = image[None]
    image = image[:1] if image.shape[0] == 2 else image[:3]
    if channels == 1 and image.shape[0] == 3:
        luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float32).reshape(3, 1, 1)
        mixed = (image.float() * luma).sum(0, keepdim=True)
        return mixed.round().to(torch.uint8) if image.dtype == torch.uint8 else mixed
    return image.expand(channels, -1, -1).contiguous()


def as_image(item: object, channels: int) -> Tensor:
    """One dataset item (tensor, PIL image, array, or a tuple that starts with one) as (channels, height, width).

    Returns uint8, or floating point in [0, 1]: integers are taken as 0 to 255.

    Raises
    ------
    ValueError : the item is no image, is empty, holds NaN, or floating-point values lie outside [0, 1].
    """
    if isinstance(item, (tuple, list)):
        item = item[0]
    if not isinstance(item, Tensor):
        array = np.asarray(item)
        item = torch.from_numpy(np.array(array.transpose(2, 0, 1) if array.ndim == 3 else array))
    if item.ndim not in (2, 3) or item.numel() == 0:
        raise ValueError(f"an image must have shape (channels, height, width), got {tuple(item.shape)}")
    if item.dtype == torch.bool:
        item = 255 * item.to(torch.uint8)
    elif not item.dtype.is_floating_point:
        low, high = int(item.long().min()), int(item.long().max())
        if not 0 <= low <= high <= 255:
            raise ValueError(f"integer pixels must lie in 0 to 255, got {low} to {high}: divide deeper images by their maximum")
        item = item.to(torch.uint8)
    elif not (float(item.min()) >= -1e-6 and float(item.max()) <= 1 + 1e-6):
        raise ValueError(f"an image must lie in [0, 1], got [{float(item.min()):.4g}, {float(item.max()):.4g}]")
    return _to_channels(item, channels)


def as_bytes(photograph: Photograph, channels: int, size: int | None = None) -> Tensor:
    """A photograph as uint8 (channels, height, width); cropped to a square and resized to `size` if given."""
    from PIL import Image, ImageOps

    stored = (photograph.pixels[0].clamp(0, 1) * 255).round().to(torch.uint8)
    picture = Image.fromarray(stored[0].numpy() if len(stored) == 1 else stored.permute(1, 2, 0).contiguous().numpy())
    picture = picture.convert("L" if channels == 1 else "RGB")
    return as_image(picture if size is None else ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS), channels)


class FolderImages(Dataset[Tensor]):
    """Every image below one or more folders, sorted by path, as uint8 tensors (channels, height, width), held in memory.

    Parameters
    ----------
    roots : folders, searched recursively; exclude : file names (with suffix) to leave out.

    Attributes
    ----------
    notes : what was assumed in reading, such as "c.tif: white is 4095, as the file states".

    Raises
    ------
    ValueError : a folder is missing or holds no image; a file cannot be decoded (its path is named).
    """

    def __init__(self, roots: Sequence[Path | str], *, channels: int = 1, exclude: Sequence[str] = ()) -> None:
        self.images: list[Tensor] = []
        self.notes: list[str] = []
        for root in map(Path, roots):
            if not root.is_dir():
                raise ValueError(f"no folder of images at {root}: give an existing folder")
            paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.name not in exclude)
            if not paths:
                raise ValueError(f"{root} holds no image: expected files ending in {', '.join(SUFFIXES)}")
            for number, path in enumerate(paths, 1):
                try:
                    photograph = read_image(path)
                except InputError as error:
                    raise InputError(f"cannot read the image {number} of {len(paths)} below {root}: {error}") from None
                self.images.append(as_bytes(photograph, channels))
                self.notes += [f"{path}: {note}" for note in photograph.notes]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


class BundledPhotographs(Dataset[Tensor]):
    """The photographs that scikit-image ships in its wheel: they need no download and train a denoiser anywhere."""

    def __init__(self, *, channels: int = 1, names: Sequence[str] = BUNDLED) -> None:
        import skimage.data

        self.images = [as_image(getattr(skimage.data, name)(), channels) for name in names]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def random_patches(dataset: Items, *, count: int, size: int, channels: int, generator: torch.Generator) -> Tensor:
    """(count, channels, size, size) float32 in [0, 1]: random crops, flipped and transposed at random.

    Raises
    ------
    ValueError : the dataset is empty or an image is smaller than `size`.
    """
    if len(dataset) == 0:
        raise ValueError("the training dataset is empty")
    patches = []
    for index in torch.randint(len(dataset), (count,), generator=generator).tolist():
        image = as_image(dataset[index], channels)
        height, width = image.shape[-2:]
        if min(height, width) < size:
            raise ValueError(f"image {index} is {height} x {width}, smaller than patch_size={size}: choose a smaller patch")
        draw = torch.rand(4, generator=generator)
        top, left = int(draw[0] * (height - size + 1)), int(draw[1] * (width - size + 1))
        patch = image[:, top : top + size, left : left + size]
        patch = patch.transpose(1, 2) if draw[2] < 0.5 else patch
        patches.append(patch.flip(2) if draw[3] < 0.5 else patch)
    batch = torch.stack(patches)
    return batch.float() / 255 if batch.dtype == torch.uint8 else batch.float()


def some_flat(patches: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Each of (count, channels, height, width) with chance `share` replaced by one gray or color, uniform in [0, 1]."""
    flat = torch.rand(len(patches), generator=generator) < share
    color = torch.rand(*patches.shape[:2], generator=generator)
    return torch.where(flat[:, None, None, None], color[..., None, None], patches)


def add_noise(image: Tensor, noise_level: float | Tensor, generator: torch.Generator) -> Tensor:
    """image + noise_level n, n standard normal, not clipped; noise_level a number or one per image of the batch."""
    noise = torch.randn(image.shape, generator=generator, dtype=image.dtype)
    level = torch.as_tensor(noise_level, dtype=image.dtype)
    return image + (level.reshape(-1, 1, 1, 1) if level.ndim else level) * noise
