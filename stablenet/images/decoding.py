"""From a file to the numbers stored in it, all bits kept, with what the file says about them.

Source: TIFF 6.0 (ExtraSamples, Orientation, MaxSampleValue), DNG 1.4 (WhiteLevel), PNG second edition. Pillow decodes,
and tifffile where it has the codec.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

Alpha = Literal["none", "straight", "premultiplied"]

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
ORIENTATION, MAX_SAMPLE_VALUE, WHITE_LEVEL, BITS_PER_SAMPLE = 274, 281, 50717, 258


class InputError(ValueError):
    """A file or an argument that cannot be used; the message names it and says what would be."""


@dataclass(frozen=True)
class Samples:
    """What a file holds.

    Parameters
    ----------
    values : (height, width) or (height, width, samples), upright.
    alpha : how the last sample is transparency, if it is.
    white : the value of white that the file states; None is the largest of an integer type, and 1 of floats.
    notes : what was assumed in decoding.
    """

    values: np.ndarray
    alpha: Alpha = "none"
    white: float | None = None
    notes: tuple[str, ...] = field(default=())


def decode(path: Path) -> Samples:
    """The samples of the first image in a file.

    Raises
    ------
    InputError : missing, empty, or of a kind that is not known or not supported.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file" if path.exists() else f"{path} does not exist")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    try:
        with _quiet():
            header = _header(path)
            samples = _tiff(path) if header[:4] in TIFF else None
            return _picture(path, header) if samples is None else samples
    except InputError:
        raise
    except Exception as error:  # decoders raise many kinds for a damaged file
        reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InputError(f"{path} cannot be read as an image: {reason}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """What decoders warn of in a damaged file is told by our error alone."""
    logs = [logging.getLogger(name) for name in ("tifffile", "PIL")]
    levels = [log.level for log in logs]
    try:
        for log in logs:
            log.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(26)


def _tiff(path: Path) -> Samples | None:
    """Gray and color TIFF by tifffile, all bits kept; None leaves it to Pillow, which has more codecs."""
    try:
        with tifffile.TiffFile(path) as file:
            pages, page = len(file.pages), file.pages[0].aspage()
            values = page.asarray()
    except Exception:  # tifffile raises many kinds, among them for codecs that Pillow has
        return None
    kinds = tifffile.PHOTOMETRIC
    if page.photometric not in (kinds.MINISBLACK, kinds.MINISWHITE, kinds.RGB):
        return None
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and values.ndim == 3:
        values = values.transpose(1, 2, 0)
    white = _stated_white(page, values)
    if page.photometric == kinds.MINISWHITE and values.dtype.kind in "bu":
        values = ~values if white is None else np.asarray(white, values.dtype) - values
    color = page.photometric == kinds.RGB
    values, alpha, notes = _without_extra_samples(values, 3 if color else 1, [int(kind) for kind in page.extrasamples])
    orientation = page.tags.get(ORIENTATION)
    upright = values if orientation is None else _upright(values, int(orientation.value))
    return Samples(upright, alpha, white, (*_pages(pages), *notes))


def _stated_white(page: tifffile.TiffPage, values: np.ndarray) -> float | None:
    """What BitsPerSample, WhiteLevel or MaxSampleValue say, where it is less than the type holds.

    MaxSampleValue is also written as a statistic of the image, so only 2^k - 1 with k >= 8 that bounds it counts.
    """
    if values.dtype.kind != "u":
        return None
    full = 8 * values.dtype.itemsize
    if page.bitspersample < full:
        return float(2**page.bitspersample - 1)
    for tag in (WHITE_LEVEL, MAX_SAMPLE_VALUE):
        stated = page.tags.get(tag)
        if stated is not None:
            level = int(np.max(stated.value))
            bits = level.bit_length()
            if int(values.max()) <= level < 2**full - 1 and (tag == WHITE_LEVEL or (level == 2**bits - 1 and bits >= 8)):
                return float(level)
    return None


def _without_extra_samples(values: np.ndarray, base: int, extra: list[int]) -> tuple[np.ndarray, Alpha, list[str]]:
    """Only a sample that ExtraSamples calls alpha (1 premultiplied, 2 straight) is alpha; others are left out."""
    if values.ndim == 2 or values.shape[-1] == base:
        return values, "none", []
    if base == 1 and values.shape[-1] >= 3 and not {1, 2} & set(extra):
        return values, "none", ["gray samples taken as red, green and blue"] if values.shape[-1] == 3 else []
    kinds = [*extra, *[0] * (values.shape[-1] - base - len(extra))]
    alphas = [k for k, kind in enumerate(kinds) if kind in (1, 2)]
    left_out = len(kinds) - len(alphas[:1])
    notes = [f"{left_out} extra sample{'s' if left_out > 1 else ''} that are not alpha left out"] if left_out else []
    if not alphas:
        return values[..., :base], "none", notes
    alpha: Alpha = "premultiplied" if kinds[alphas[0]] == 1 else "straight"
    return np.concatenate([values[..., :base], values[..., base + alphas[0], None]], axis=-1), alpha, notes


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """The array as it is to be looked at, from the tag Orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _picture(path: Path, header: bytes) -> Samples:
    """What Pillow reads, transposed as EXIF says."""
    with Image.open(path) as image:
        notes = _pages(getattr(image, "n_frames", 1))
        image.seek(0)
        bits = _bits(image, header)
        keyed = "transparency" in image.info
        low = None if keyed or bits != 16 else _low_bytes(path, image)
        if low is None and bits > 8 and image.mode in ("LA", "RGB", "RGBA"):
            notes.append(f"{bits}-bit samples read with 8 bits (other ways of storing them keep all)")
        if image.mode == "CMYK":
            notes.append("CMYK converted to RGB without a color profile")
        upright = _convertible(ImageOps.exif_transpose(image))
        if image.format == "PNG" and header[25] == 4:
            upright = upright.convert("LA")  # Pillow opens gray of 16 bits with alpha as color
        values = np.asarray(upright)
    if low is not None:
        values = values.astype(np.uint16) << 8 | low
    if values.dtype == np.int32:
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"{path} has integer pixels outside 0 ... 65535: save it with 8 or 16 bits")
        values = values.astype(np.uint16)
    white = float(2**bits - 1) if values.dtype == np.uint16 and 8 < bits < 16 else None
    alpha: Alpha = "straight" if values.ndim == 3 and values.shape[2] in (2, 4) else "none"
    return Samples(values, alpha, white, tuple(notes))


def _bits(image: ImageFile.ImageFile, header: bytes) -> int:
    """Of a stored sample: PNG and TIFF say it, other files have 8."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(max(image.tag_v2.get(BITS_PER_SAMPLE, (8,))))
    return header[24] if image.format == "PNG" else 8


def _low_bytes(path: Path, image: ImageFile.ImageFile) -> np.ndarray | None:
    """The low bytes of color samples of 16 bits, of which Pillow keeps the high ones; None where it cannot tell them.

    Read as if of the other byte order, a sample's low byte is its high one.
    """
    raw = [tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0] for tile in image.tile]
    swapped = {
        f"{mode};16{order}": f"{mode};16{other}"
        for mode in ("RGB", "RGBA")
        for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
    }
    if not raw or not set(raw) <= set(swapped):
        return None
    with Image.open(path) as other:
        other.tile = [
            tile._replace(args=swapped[mode] if isinstance(tile.args, str) else (swapped[mode], *(tile.args or ())[1:]))
            for tile, mode in zip(other.tile, raw, strict=True)
        ]
        return np.asarray(ImageOps.exif_transpose(other))


def _convertible(image: Image.Image) -> Image.Image:
    """The image in a mode whose array is gray or color, with alpha or without; gray stays gray."""
    keyed = "transparency" in image.info  # a palette entry or a color that is transparent
    if image.mode in DEEP or (image.mode in ("L", "LA", "RGB", "RGBA") and not keyed):
        return image
    gray = image.mode in ("1", "L", "LA", "La")
    transparent = keyed or image.mode in ("LA", "PA", "La", "RGBA", "RGBa")
    return image.convert(("LA" if transparent else "L") if gray else "RGBA" if transparent else "RGB")


def _pages(number: int) -> list[str]:
    return [f"the first of {number} pages is used"] if number > 1 else []
