"""Images of every supported kind are read to the right numbers, at their depth, and bad ones are told by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps

from stablenet.files import aside
from stablenet.images.decoding import InputError
from stablenet.images.reading import read_image
from stablenet.images.writing import write_float, write_image

RANDOM = np.random.default_rng(0)
GRAY16 = RANDOM.integers(0, 65536, (7, 5), dtype=np.uint16)
COLOR16 = RANDOM.integers(0, 65536, (7, 5, 3), dtype=np.uint16)
COLOR8 = RANDOM.integers(0, 256, (7, 5, 3), dtype=np.uint8)
ALPHA8 = np.dstack([COLOR8, RANDOM.integers(0, 256, (7, 5), dtype=np.uint8)])
ON_WHITE = COLOR8 / 255 * (ALPHA8[..., 3:] / 255) + 1 - ALPHA8[..., 3:] / 255


def write_png16(path: Path, values: np.ndarray, *, color_type: int = 2, exif: bytes = b"") -> None:
    """A 16-bit PNG of a color type, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header)
        + (chunk(b"eXIf", exif) if exif else b"")
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def save(values: np.ndarray, **options: object) -> object:
    return lambda path: Image.fromarray(values).save(path, **options)


READABLE = {
    "gray8.png": (save(COLOR8[..., 0]), COLOR8[..., :1] / 255, 1e-6),
    "color8.png": (save(COLOR8), COLOR8 / 255, 1e-6),
    "gray16.png": (save(GRAY16), GRAY16[..., None] / 65535, 1e-6),
    "color16.png": (lambda path: write_png16(path, COLOR16), COLOR16 / 65535, 1e-6),
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
    "negative.tif": (spoiled_float(-1.5), r"assumed to lie in \[0, 1\]"),
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


@pytest.mark.parametrize("name", READABLE)
def test_damaged_images_are_read_or_told_and_nothing_else_is_said(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Bytes of the header changed at random; decoders raise what they like and log what they like."""
    random = np.random.default_rng(1)
    READABLE[name][0](tmp_path / name)
    data = (tmp_path / name).read_bytes()
    for _ in range(30):
        damaged = np.frombuffer(data, np.uint8).copy()
        damaged[random.integers(0, min(200, len(data)), 3)] = random.integers(0, 256, 3)
        (tmp_path / name).write_bytes(damaged.tobytes())
        try:
            assert read_image(tmp_path / name).pixels.dtype == torch.float32
        except InputError as error:
            assert name in str(error)
    assert caplog.text == ""


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


def of(values: np.ndarray, path: Path, **options: object) -> Path:
    tifffile.imwrite(path, values, **options)
    return path


def hwc(path: Path, **options: object) -> np.ndarray:
    return read_image(path, **options).pixels[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("channels", [2, 4])
def test_16_bit_png_with_alpha_keeps_its_bits_or_says_that_it_does_not(channels: int, tmp_path: Path) -> None:
    values = RANDOM.integers(0, 65536, (7, 5, channels), dtype=np.uint16)
    write_png16(tmp_path / "a.png", values, color_type={2: 4, 4: 6}[channels])
    color, alpha = values[..., :-1] / 65535, values[..., -1:] / 65535
    told = any("8 bits" in note for note in read_image(tmp_path / "a.png").notes)
    np.testing.assert_allclose(hwc(tmp_path / "a.png"), color * alpha + 1 - alpha, atol=1 / 128 if told else 1e-6)
    assert told == (channels == 2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "16.png"])
def test_every_orientation_is_set_upright_in_every_format(orientation: int, suffix: str, tmp_path: Path) -> None:
    """The oracle is Pillow on an 8-bit PNG."""
    image = Image.fromarray(COLOR8)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "oracle.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "oracle.png"))) / 255
    path = tmp_path / f"turned.{suffix}"
    if suffix == "tif":
        tag = (274, "H", 1, orientation, True)
        tifffile.imwrite(path, 257 * COLOR8.astype(np.uint16), photometric="rgb", extratags=[tag])
    elif suffix == "16.png":
        write_png16(path, 257 * COLOR8.astype(np.uint16), exif=exif.tobytes().removeprefix(b"Exif\0\0"))
    else:
        image.save(path, exif=exif)
    np.testing.assert_allclose(hwc(path), expected, atol=1e-6)


def test_samples_that_are_not_alpha_are_left_out(tmp_path: Path) -> None:
    path = of(ALPHA8, tmp_path / "depth.tif", photometric="rgb", extrasamples=["unspecified"])
    np.testing.assert_allclose(hwc(path), COLOR8 / 255, atol=1e-6)
    assert read_image(path).notes == ("1 extra sample that are not alpha left out",)


def test_premultiplied_transparency_is_composited_as_it_is(tmp_path: Path) -> None:
    alpha = ALPHA8[..., 3:].astype(np.uint16) * 257
    stored = np.concatenate([(COLOR8 / 255 * alpha).astype(np.uint16), alpha], axis=-1)
    path = of(stored, tmp_path / "pre.tif", photometric="rgb", extrasamples=["assocalpha"])
    np.testing.assert_allclose(hwc(path), ON_WHITE, atol=2e-5)


def test_white_of_12_bits_in_16_is_taken_where_it_is_stated_and_asked_for_where_not(tmp_path: Path) -> None:
    values = GRAY16 // 16
    values[0, 0] = 4095
    silent = of(values, tmp_path / "silent.tif")
    stated = of(values, tmp_path / "stated.tif", extratags=[(281, "H", 1, 4095, True)])
    raw = of(values, tmp_path / "raw.tif", extratags=[(50717, "H", 1, 4000 + 95, True)])
    expected = values[..., None] / 4095
    for path in (stated, raw):
        np.testing.assert_allclose(hwc(path), expected, atol=1e-6)
        assert read_image(path).notes == ("white is 4095, as the file states",)
    np.testing.assert_allclose(hwc(silent), values[..., None] / 65535, atol=1e-6)
    assert "if they hold 12 bits, give --white-level 4095" in read_image(silent).notes[0]
    np.testing.assert_allclose(hwc(silent, white_level=4095), expected, atol=1e-6)
    assert read_image(silent, white_level=4095).notes == ()
    Image.fromarray(values).save(tmp_path / "silent.png")
    assert "--white-level 4095" in read_image(tmp_path / "silent.png").notes[0]


def test_a_statistic_is_no_white_level(tmp_path: Path) -> None:
    """MaxSampleValue may be the highest pixel of this image."""
    path = of(np.full((4, 4), 1000, np.uint16), tmp_path / "a.tif", extratags=[(281, "H", 1, 1000, True)])
    assert float(read_image(path).pixels.max()) == pytest.approx(1000 / 65535)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_beyond_the_unit_range_are_measurements(dtype: type, tmp_path: Path) -> None:
    values = np.linspace(-0.4, 1.3, 35).reshape(7, 5).astype(dtype)
    found = read_image(of(values, tmp_path / "noisy.tif"))
    np.testing.assert_allclose(found.pixels[0, 0].numpy(), values, atol=1e-6)
    assert found.bits == 32 and found.notes == ("values in [-0.4, 1.3] kept, unclipped",)
    scaled = read_image(of(255 * values, tmp_path / "scaled.tif"), white_level=255)
    np.testing.assert_allclose(scaled.pixels[0, 0].numpy(), values, atol=1e-3)


@pytest.mark.parametrize("white_level", [0.0, -1.0, float("nan"), float("inf")])
def test_no_level_of_white_is_told(white_level: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="white level"):
        read_image(of(GRAY16, tmp_path / "a.tif"), white_level=white_level)


def test_an_inverted_scale_and_a_color_of_ink_are_read(tmp_path: Path) -> None:
    path = of(GRAY16, tmp_path / "film.tif", photometric="miniswhite")
    np.testing.assert_allclose(hwc(path), 1 - GRAY16[..., None] / 65535, atol=1e-6)
    Image.new("CMYK", (5, 7), (0, 255, 255, 0)).save(tmp_path / "ink.jpg", quality=100)
    ink = read_image(tmp_path / "ink.jpg")
    np.testing.assert_allclose(ink.pixels[0, :, 0, 0].numpy(), [1, 0, 0], atol=0.02)
    assert ink.notes == ("CMYK converted to RGB without a color profile",)


def test_a_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((4, 4), np.uint8), mode="P")
    image.putpalette([255, 0, 0])
    image.save(tmp_path / "p.png", transparency=0)
    assert float(read_image(tmp_path / "p.png").pixels.min()) == 1


@pytest.mark.parametrize("options", [{}, {"predictor": True}, {"byteorder": ">"}])
def test_codecs_of_pillow_keep_16_bits_too(options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LZW and PackBits are Pillow's, which keeps the high byte of a color sample; deflate stands in for them here."""
    path = of(COLOR16, tmp_path / "a.tif", photometric="rgb", compression="zlib", **options)
    monkeypatch.setattr("stablenet.images.decoding.tifffile.TiffFile", None)
    np.testing.assert_allclose(hwc(path), COLOR16 / 65535, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_and_floats_come_back(channels: int, tmp_path: Path) -> None:
    stored = COLOR16[..., :channels] / 65535
    pixels = torch.from_numpy(stored).float().permute(2, 0, 1)[None]
    write_image(tmp_path / "deep.png", pixels, bits=16)
    assert read_image(tmp_path / "deep.png").bits == 16
    np.testing.assert_array_equal((hwc(tmp_path / "deep.png") * 65535).round(), COLOR16[..., :channels])
    write_float(tmp_path / "float.tif", 1.5 * pixels - 0.2)
    torch.testing.assert_close(read_image(tmp_path / "float.tif").pixels, 1.5 * pixels - 0.2, rtol=0, atol=0)
