"""The one decoder: photographs from files as (1, channels, height, width) float32 tensors, at the depth of the file.

Source: integers are divided by the level of white, so that images lie in [0, 1]; transparency is composited on white.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stablenet.images.decoding import InputError, Samples, decode

LOWEST, HIGHEST = -1.0, 2.0  # what noise on an image in [0, 1] may reach; beyond, the scale is another one


@dataclass(frozen=True)
class Photograph:
    """An image and how it was stored.

    Parameters
    ----------
    pixels : (1, 1 or 3, height, width) float32; of integers in [0, 1], of floats as they are stored.
    bits : of a sample in the file: 8 (or fewer), 16 (or 9 to 15), or 32 for floats.
    notes : what was assumed in reading it.
    """

    pixels: Tensor
    bits: int = 8
    notes: tuple[str, ...] = ()


def read_image(path: Path, *, white_level: float | None = None) -> Photograph:
    """Read an image of gray or color, with 1 to 16 bits or floats: PNG, JPEG, TIFF and what else Pillow reads.

    Parameters
    ----------
    white_level : the number stored for white; None takes what the file states, else the largest of its integer type, else 1.

    Raises
    ------
    InputError : missing, unreadable, empty, of an unknown kind, with NaN or infinite pixels, or on another scale.
    """
    path = Path(path)
    samples = decode(path)
    if samples.values.size == 0 or samples.values.ndim not in (2, 3):
        raise InputError(f"{path} holds no image: its array has shape {samples.values.shape}")
    values, scale_notes = _scaled(samples, white_level, path)
    values, alpha_notes = _opaque(values, samples)
    if values.shape[2] not in (1, 3):
        raise InputError(f"{path} has {values.shape[2]} channels: gray (1) or color (3) is needed")
    pixels = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))
    kind = samples.values.dtype
    bits = 32 if kind.kind == "f" else 16 if kind.itemsize > 1 else 8
    return Photograph(pixels[None], bits, (*samples.notes, *alpha_notes, *scale_notes))


def _scaled(samples: Samples, white_level: float | None, path: Path) -> tuple[np.ndarray, list[str]]:
    """The samples divided by the level of white, (height, width, samples) float32, in [-1, 2]."""
    values, notes = samples.values, []
    if white_level is not None and not 0 < white_level < float("inf"):
        raise InputError(f"white level {white_level:g} is no level of white: give a positive number, such as 4095")
    white = white_level or samples.white
    if values.dtype.kind == "f":
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise InputError(f"{path} has {bad} NaN or infinite pixels")
        white = white or 1.0
    elif white is None:
        if values.dtype not in (bool, np.uint8, np.uint16):
            raise InputError(
                f"{path} has pixels of type {values.dtype}: 8- or 16-bit integers or floats are read, others with the "
                "level of white, such as --white-level 65535"
            )
        white = 1 if values.dtype == bool else np.iinfo(values.dtype).max
        notes = _shallow(values)
    elif white_level is None:
        notes = [f"white is {white:g}, as the file states"]
    scaled = (values.astype(np.float64) / white).astype(np.float32)
    scaled = scaled[..., None] if scaled.ndim == 2 else scaled
    return scaled, [*notes, *_range(scaled, white, path)]


def _range(scaled: np.ndarray, white: float, path: Path) -> list[str]:
    low, high = float(scaled.min()), float(scaled.max())
    if low < LOWEST or high > HIGHEST:
        raise InputError(
            f"{path} has pixels in [{white * low:.4g}, {white * high:.4g}]: they are assumed to lie in [0, {white:g}] but for "
            "noise, so give the number that stands for white, such as --white-level 255"
        )
    return [] if low >= -1e-6 and high <= 1 + 1e-6 else [f"values in [{low:.3g}, {high:.3g}] kept, unclipped"]


def _shallow(values: np.ndarray) -> list[str]:
    """A note on 16-bit samples that fewer bits would hold: cameras store 12 bits so, and the image is then near black."""
    highest = int(values.max())
    bits = max(highest.bit_length(), 8)
    if values.dtype != np.uint16 or highest == 0 or bits > 14:
        return []
    return [
        f"16-bit samples reach {highest} of 65535 only: if they hold {bits} bits, give --white-level {2**bits - 1}",
    ]


def _opaque(values: np.ndarray, samples: Samples) -> tuple[np.ndarray, list[str]]:
    """Transparency composited on white: alpha x + 1 - alpha, or x + 1 - alpha where x is premultiplied."""
    if samples.alpha == "none":
        return values, []
    color, alpha = values[..., :-1], values[..., -1:].clip(0, 1)
    seen = color * alpha if samples.alpha == "straight" else color
    return seen + (1 - alpha), ["transparency composited on white"] if bool((alpha < 1).any()) else []
