"""Kernels by name, from arrays and from images are probabilities, and bad ones are told by name."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp import kernels
from pnp.kernels import read_kernel
from stablenet.images.decoding import InputError

RANDOM = np.random.default_rng(0)
COLOR8 = RANDOM.integers(0, 256, (7, 5, 3), dtype=np.uint8)


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
