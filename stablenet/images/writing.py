"""Images to files at 8 or 16 bits (PNG) or as they are (TIFF of floats); a file appears complete or not at all.

Source: PNG second edition, sections 5, 9 and 11; Pillow writes no color PNG of 16 bits, so that one is written here.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
import torch
from PIL import Image
from torch import Tensor

from stablenet.files import aside


def write_image(path: Path, pixels: Tensor, *, bits: Literal[8, 16] = 8) -> None:
    """Write (1, 1 or 3, height, width) as a PNG of 8 or 16 bits a sample, clipped to [0, 1]."""
    scaled = (_rows(pixels).clip(0, 1).astype(np.float64) * (2**bits - 1)).round()
    with aside(path) as partial:
        if bits == 16:
            partial.write_bytes(_png16(scaled.astype(np.uint16)))
        else:
            values = scaled.astype(np.uint8)
            Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(partial, format="PNG")


def write_float(path: Path, pixels: Tensor) -> None:
    """Write (1, 1 or 3, height, width) as a TIFF of 32-bit floats, unclipped."""
    values = _rows(pixels).astype(np.float32)
    gray = values.shape[2] == 1
    with aside(path) as partial:
        tifffile.imwrite(partial, values[..., 0] if gray else values, photometric="minisblack" if gray else "rgb")


def _rows(pixels: Tensor) -> np.ndarray:
    return pixels[0].detach().cpu().to(torch.float32).permute(1, 2, 0).numpy()


def _png16(values: np.ndarray) -> bytes:
    """(height, width, 1 or 3) uint16 as a PNG; each row is stored as its difference from the one above (filter 2)."""
    height, width, channels = values.shape
    rows = np.frombuffer(values.astype(">u2").tobytes(), np.uint8).reshape(height, -1)
    filtered = rows - np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    data = np.concatenate([np.full((height, 1), 2, np.uint8), filtered], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 16, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(data, 6)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
