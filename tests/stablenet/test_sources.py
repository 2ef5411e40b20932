"""Every way to name labeled images leads to the same kind of set, or to one clear error."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from stablenet.images.labeled import torchvision_set
from stablenet.images.sources import LabeledSource


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mnist(folder, prefix: str, count: int) -> np.ndarray:
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8) % 10))
    return images


def test_nothing_named_is_the_bundled_set():
    images = LabeledSource().read(train=True, channels=3)
    assert len(images) == 10_000
    assert LabeledSource().is_shuffled and not LabeledSource().has_test
    assert "bundled" in str(LabeledSource())


def test_a_folder_of_idx_files(tmp_path):
    train, test = mnist(tmp_path, "train", 12), mnist(tmp_path, "t10k", 11)
    source = LabeledSource(tmp_path)
    assert np.array_equal(source.read(train=True, channels=1).images[:, 0].numpy(), train)
    assert np.array_equal(source.read(train=False, channels=1).images[:, 0].numpy(), test)


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_a_set_of_torchvision_s(tmp_path, name):
    train, test = mnist(tmp_path / name / "raw", "train", 12), mnist(tmp_path / name / "raw", "t10k", 11)
    source = LabeledSource(tmp_path, dataset=name)
    assert source.has_test and str(source) == name
    found = source.read(train=True, channels=3)
    assert np.array_equal(found.images[:, 0].numpy(), train)
    assert found.labels.tolist() == [k % 10 for k in range(12)]
    assert len(found.classes) == 10
    assert np.array_equal(torchvision_set(name, tmp_path, train=False).images[:, 0].numpy(), test)


def test_class_folders_keep_the_contrast_of_deep_images(tmp_path):
    for k, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
        Image.fromarray(ramp[::-1] if k else ramp).save(tmp_path / name / "deep.png")
    found = LabeledSource(tmp_path).read(train=True, channels=1)
    assert int(found.images.min()) == 0 and int(found.images.max()) == 255
    assert len(found.images[0].unique()) > 50
    assert LabeledSource(tmp_path, size=4).read(train=True, channels=3).shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (LabeledSource(dataset="SVHN"), "unknown set 'SVHN'"),
        (LabeledSource(dataset="CIFAR100"), "CIFAR100 is not at"),
    ],
)
def test_bad_sources(source, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=text):
        source.read(train=True, channels=3)
    with pytest.raises(ValueError, match="no folder of classes at"):
        LabeledSource(tmp_path / "absent").read(train=True, channels=3)
