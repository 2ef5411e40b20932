"""Images and kernels of every supported kind are read to the right numbers, and bad ones are told by name."""

from __future__ import annotations

import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from pnp import kernels
from pnp.images import InputError, read_image, write_image
from pnp.kernels import read_kernel
from stablenet.files import aside

RANDOM = np.random.default_rng(0)
GRAY16 = RANDOM.integers(0, 65536, (7, 5), dtype=np.uint16)
COLOR16 = RANDOM.integers(0, 65536, (7, 5, 3), dtype=np.uint16)
COLOR8 = RANDOM.integers(0, 256, (7, 5, 3), dtype=np.uint8)
ALPHA8 = np.dstack([COLOR8, RANDOM.integers(0, 256, (7, 5), dtype=np.uint8)])
ON_WHITE = COLOR8 / 255 * (ALPHA8[..., 3:] / 255) + 1 - ALPHA8[..., 3:] / 255


def write_png16(path: Path, values: np.ndarray) -> None:
    """A 16-bit RGB PNG, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def save(values: np.ndarray, **options: object) -> object:
    return lambda path: Image.fromarray(values).save(path, **options)


READABLE = {
    "gray8.png": (save(COLOR8[..., 0]), COLOR8[..., :1] / 255, 1e-6),
    "color8.png": (save(COLOR8), COLOR8 / 255, 1e-6),
    "gray16.png": (save(GRAY16), GRAY16[..., None] / 65535, 1e-6),
    "color16.png": (lambda path: write_png16(path, COLOR16), COLOR16 / 65535, 1 / 255),
    "rgba.png": (save(ALPHA8), ON_WHITE, 1e-6),
    "gray_alpha.png": (
        lambda path: Image.merge("LA", [Image.fromarray(ALPHA8[..., 0]), Image.fromarray(ALPHA8[..., 3])]).save(path),
        ON_WHITE[..., :1],
        1e-6,
    ),
    "palette.png": (lambda path: Image.fromarray(COLOR8 // 128 * 255).quantize(8).save(path), COLOR8 // 128, 1e-6),
    "bilevel.png": (
        lambda path: Image.fromarray(COLOR8[..., 0] > 127).save(path),
        (COLOR8[..., :1] > 127).astype(float),
        1e-6,
    ),
    "flat.jpg": (
        lambda path: Image.new("RGB", (5, 7), (128, 128, 128)).save(path),
        np.full((7, 5, 3), 128 / 255),
        0.01,
    ),
    "gray8.tif": (save(COLOR8[..., 0]), COLOR8[..., :1] / 255, 1e-6),
    "lzw.tif": (save(COLOR8, compression="tiff_lzw"), COLOR8 / 255, 1e-6),
    "color16.tif": (lambda path: tifffile.imwrite(path, COLOR16, photometric="rgb"), COLOR16 / 65535, 1e-6),
    "planar16.tif": (
        lambda path: tifffile.imwrite(path, COLOR16.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        COLOR16 / 65535,
        1e-6,
    ),
    "float.tif": (
        lambda path: tifffile.imwrite(path, (COLOR16 / 65535).astype(np.float32), photometric="rgb"),
        COLOR16 / 65535,
        1e-6,
    ),
}


@pytest.mark.parametrize("name", READABLE)
def test_images_are_read_to_the_unit_range(name: str, tmp_path: Path) -> None:
    write, expected, tolerance = READABLE[name]
    write(tmp_path / name)
    pixels = read_image(tmp_path / name).pixels
    assert pixels.dtype == torch.float32
    np.testing.assert_allclose(pixels[0].permute(1, 2, 0).numpy(), expected, atol=tolerance)


def test_what_was_assumed_is_told(tmp_path: Path) -> None:
    Image.fromarray(ALPHA8).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").notes == ("transparency composited on white",)
    write_png16(tmp_path / "b.png", COLOR16)
    assert "8 bits" in read_image(tmp_path / "b.png").notes[0]
    tifffile.imwrite(tmp_path / "c.tif", np.stack([COLOR8] * 3), photometric="rgb")
    assert read_image(tmp_path / "c.tif").notes == ("the first of 3 pages is used",)


def test_the_orientation_of_a_camera_is_honored(tmp_path: Path) -> None:
    image = Image.fromarray(COLOR8)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png").pixels.shape == (1, 3, 5, 7)


def spoiled_float(value: float) -> object:
    return lambda path: tifffile.imwrite(path, np.full((4, 4), value, np.float32))


UNREADABLE = {
    "missing.png": (lambda path: None, "does not exist"),
    "folder.png": (lambda path: path.mkdir(), "is not a file"),
    "empty.png": (lambda path: path.write_bytes(b""), "is empty"),
    "text.png": (lambda path: path.write_text("hello"), "format is not known"),
    "nan.tif": (spoiled_float(np.nan), "NaN"),
    "inf.tif": (spoiled_float(np.inf), "NaN or infinite"),
    "large.tif": (spoiled_float(200.0), r"assumed to lie in \[0, 1\]"),
    "negative.tif": (spoiled_float(-0.5), r"assumed to lie in \[0, 1\]"),
    "five.tif": (lambda path: tifffile.imwrite(path, np.zeros((4, 4, 5), np.uint8), planarconfig="contig"), "channels"),
    "wide.tif": (lambda path: tifffile.imwrite(path, np.zeros((4, 4), np.uint32)), "uint32"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_bad_images_are_told_by_name(name: str, tmp_path: Path) -> None:
    write, message = UNREADABLE[name]
    write(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        read_image(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["color8.png", "flat.jpg", "color16.tif"])
def test_truncated_images_are_told_by_name(name: str, tmp_path: Path) -> None:
    READABLE[name][0](tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=name):
        read_image(tmp_path / name)


@pytest.mark.parametrize("channels", [1, 3])
def test_written_images_come_back(channels: int, tmp_path: Path) -> None:
    pixels = torch.from_numpy(COLOR8[..., :channels] / 255).float().permute(2, 0, 1)[None]
    write_image(tmp_path / "x.png", pixels + 0.001)
    torch.testing.assert_close(read_image(tmp_path / "x.png").pixels, pixels, atol=1e-6, rtol=0)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), aside(target) as partial:
        partial.write_text("new")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", kernels.NAMED)
def test_named_kernels_are_probabilities(name: str) -> None:
    kernel = kernels.NAMED[name]()
    assert kernel.shape[:2] == (1, 1) and bool((kernel >= 0).all())
    assert float(kernel.double().sum()) == pytest.approx(1, abs=1e-6)


def test_kernels_are_read_from_arrays_and_images(tmp_path: Path) -> None:
    values = RANDOM.random((5, 4))
    values /= values.sum()
    np.save(tmp_path / "k.npy", values)
    np.savez(tmp_path / "one.npz", k=values)
    np.savez(tmp_path / "two.npz", a=np.ones((1, 1)), b=values)
    for kernel, _ in (
        read_kernel(tmp_path / "k.npy"),
        read_kernel(tmp_path / "one.npz"),
        read_kernel(tmp_path / "two.npz", "b"),
    ):
        np.testing.assert_allclose(kernel[0, 0].numpy(), values, rtol=1e-6)
    with pytest.raises(InputError, match="a, b: choose"):
        read_kernel(tmp_path / "two.npz")
    Image.fromarray(COLOR8[..., 0]).save(tmp_path / "k.png")
    kernel, notes = read_kernel(tmp_path / "k.png")
    np.testing.assert_allclose(kernel[0, 0].numpy(), COLOR8[..., 0] / COLOR8[..., 0].sum(), rtol=1e-5)
    assert notes == ("kernel image divided by its sum",)


BAD_KERNELS = {
    "sum": (np.ones((3, 3)), "sums to 9, not 1: divide it"),
    "negative": (np.array([[1.5, -0.5]]), "negative"),
    "nan": (np.array([[np.nan, 1.0]]), "NaN"),
    "line": (np.ones(3) / 3, "2-D"),
    "empty": (np.zeros((0, 3)), "2-D"),
    "text": (np.array([["a"]]), "type"),
    "complex": (np.array([[1 + 0j]]), "type"),
    "zero": (np.zeros((3, 3)), "sums to 0"),
}


@pytest.mark.parametrize("name", BAD_KERNELS)
def test_bad_kernels_are_told_by_name(name: str, tmp_path: Path) -> None:
    values, message = BAD_KERNELS[name]
    np.save(tmp_path / "bad.npy", values)
    with pytest.raises(InputError, match=message) as caught:
        read_kernel(tmp_path / "bad.npy")
    assert "bad.npy" in str(caught.value)


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "raw.npy").write_bytes(pickle.dumps([1]))
    (tmp_path / "junk.npz").write_bytes(b"PK\x03\x04 no archive")
    Image.new("L", (3, 3), 0).save(tmp_path / "black.png")
    for name in ("object.npy", "raw.npy", "junk.npz", "black.png", "missing.npy"):
        with pytest.raises(InputError, match=name):
            read_kernel(tmp_path / name)
