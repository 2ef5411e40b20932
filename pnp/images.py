"""Photographs to and from (1, channels, height, width) float32 tensors in [0, 1]; files are written whole or not.

Formats are those of Pillow, and of tifffile for TIFF; transparency is composited on white.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from stablenet.files import aside


class InputError(ValueError):
    """A file or an argument that cannot be used; the message names it and says what would be."""


@dataclass(frozen=True)
class Photograph:
    """pixels (1, 1 or 3, height, width) float32 in [0, 1], and what was assumed in reading them."""

    pixels: Tensor
    notes: tuple[str, ...] = ()


def read_image(path: Path) -> Photograph:
    """Read an 8- or 16-bit gray or color image (PNG, JPEG, TIFF and what else Pillow reads), or float TIFF in [0, 1].

    Raises
    ------
    InputError : missing, unreadable, empty, of an unknown kind, with NaN or infinite pixels or outside [0, 1].
    """
    values, notes = _decode(Path(path))
    if values.size == 0 or values.ndim not in (2, 3) or values.shape[-1] == 0:
        raise InputError(f"{path} holds no image: its array has shape {values.shape}")
    values = _to_unit_range(values, path)
    if values.ndim == 2:
        values = values[..., None]
    if values.shape[2] in (2, 4):
        alpha = values[..., -1:]
        values = values[..., :-1] * alpha + (1 - alpha)
        if bool((alpha < 1).any()):
            notes.append("transparency composited on white")
    if values.shape[2] not in (1, 3):
        raise InputError(f"{path} has {values.shape[2]} channels: gray (1) or color (3) is needed")
    pixels = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32))
    return Photograph(pixels[None].clamp(0, 1), tuple(notes))


def write_image(path: Path, pixels: Tensor) -> None:
    """Write (1, 1 or 3, height, width) as an 8-bit PNG, clipped to [0, 1]; the file appears complete or not at all."""
    values = (pixels[0].detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    with aside(path) as partial:
        Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(partial, format="PNG")


def psnr(estimate: Tensor, reference: Tensor) -> float:
    """-10 log10 mean (estimate - reference)^2 in dB, peak 1, unclipped, over all entries."""
    return float(-10 * torch.log10(((estimate - reference).double() ** 2).mean()))


def _decode(path: Path) -> tuple[np.ndarray, list[str]]:
    if not path.is_file():
        raise InputError(f"{path} is not a file" if path.exists() else f"{path} does not exist")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    try:
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            tiff = file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
            return _decode_tiff(path) if tiff else _decode_other(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InputError(f"{path} cannot be read as an image: {reason}") from None


def _decode_tiff(path: Path) -> tuple[np.ndarray, list[str]]:
    try:
        with tifffile.TiffFile(path) as file:
            pages, page = len(file.pages), file.pages[0]
            values = page.asarray()
            planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and values.ndim == 3
            plain = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
    except Exception:  # tifffile raises many kinds, among them for codecs that Pillow has
        return _decode_other(path)
    if not plain:
        return _decode_other(path)
    return (values.transpose(1, 2, 0) if planar else values), _pages(pages)


def _decode_other(path: Path) -> tuple[np.ndarray, list[str]]:
    with Image.open(path) as image:
        notes = _pages(getattr(image, "n_frames", 1))
        image = ImageOps.exif_transpose(image)
        if image.mode not in ("L", "LA", "RGB", "RGBA", "I;16", "I;16B", "I", "F"):
            transparent = "transparency" in image.info or image.mode in ("PA", "La", "RGBa")
            gray = image.mode == "1"
            image = image.convert("L" if gray else "RGBA" if transparent else "RGB")
        values = np.asarray(image)
    with path.open("rb") as file:
        header = file.read(26)
    if header[1:4] == b"PNG" and header[24] == 16 and values.dtype == np.uint8:
        notes.append("16-bit color PNG read with 8 bits per channel (TIFF keeps all 16)")
    if values.dtype == np.int32:
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"{path} has integer pixels outside 0 ... 65535: save it with 8 or 16 bits")
        values = values.astype(np.uint16)
    return values, notes


def _pages(number: int) -> list[str]:
    return [f"the first of {number} pages is used"] if number > 1 else []


def _to_unit_range(values: np.ndarray, path: Path) -> np.ndarray:
    """Integers are divided by the largest value of their type; floats are taken as they are, in [0, 1]."""
    if values.dtype == bool:
        return values.astype(np.float32)
    if values.dtype in (np.uint8, np.uint16):
        return values.astype(np.float32) / np.iinfo(values.dtype).max
    if values.dtype.kind != "f":
        raise InputError(f"{path} has pixels of type {values.dtype}: 8- or 16-bit integers or floats are read")
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise InputError(f"{path} has {bad} NaN or infinite pixels")
    low, high = float(values.min()), float(values.max())
    if low < -1e-6 or high > 1 + 1e-6:
        raise InputError(f"{path} has float pixels in [{low:.4g}, {high:.4g}]: they are assumed to lie in [0, 1]")
    return values.astype(np.float32)
