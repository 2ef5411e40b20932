"""Shapes that a classifier takes and refuses, and labeled images from files."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch
from PIL import Image

from stablenet.bundled import data_path
from stablenet.images.labeled import LabeledImages, class_folders, idx_folder, read_idx, torchvision_set
from stablenet.networks import Classifier, ClassifierArchitecture


def test_logits_of_a_batch():
    network = Classifier(ClassifierArchitecture(stages=((4, 1), (16, 1)), dense_features=8))
    assert network(torch.rand(3, 1, 28, 28)).shape == (3, 10)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.rand(2, 3, 28, 28), r"\(batch, 1, 28, 28\)"),
        (torch.rand(2, 1, 32, 32), r"\(2, 1, 32, 32\)"),
        (torch.rand(0, 1, 28, 28), "at least one"),
        (torch.rand(1, 28, 28), "as trained on"),
        (torch.zeros(1, 1, 28, 28, dtype=torch.uint8), "uint8"),
        (torch.full((1, 1, 28, 28), torch.nan), "NaN"),
        ("image", "str"),
    ],
)
def test_other_images_are_refused(x, text):
    with pytest.raises(ValueError, match=text):
        Classifier(ClassifierArchitecture(stages=((4, 1),), dense_features=8)).eval()(x)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"stages": ()}, "at least one"),
        ({"stages": ((2, 1),)}, "4 channels reach it"),
        ({"stages": ((8, 1), (8, 1)), "downsampling": "unshuffle"}, "32 channels reach it"),
        ({"stages": ((4, 1), (16, 1), (64, 1))}, "halve 7 x 7"),
        ({"stages": ((5, 1),), "maxmin": True}, "even"),
        ({"classes": 1}, "classes"),
        ({"downsampling": "max"}, "max"),
        ({"height": 0}, "height"),
    ],
)
def test_impossible_shapes_are_refused(change, text):
    with pytest.raises(ValueError, match=text):
        ClassifierArchitecture(**change)


def test_the_shipped_set_is_whole():
    images = idx_folder(data_path("fashion-mnist/train-images-idx3-ubyte.gz").parent)
    assert len(images) == 10_000
    assert images.shape == (1, 28, 28)
    assert torch.bincount(images.labels).min() > 900
    assert len(images.classes) == 10
    assert images[0][1] == 9, "the first image is an ankle boot"


def write_idx(path, array):
    path.write_bytes(gzip.compress(bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()))


def test_idx_files_are_checked(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "whole.gz", array)
    assert (read_idx(tmp_path / "whole.gz") == array).all()
    (tmp_path / "cut.gz").write_bytes((tmp_path / "whole.gz").read_bytes()[:-5])
    (tmp_path / "short").write_bytes(gzip.decompress((tmp_path / "whole.gz").read_bytes())[:-3])
    (tmp_path / "other").write_bytes(b"PNG")
    for name, text in (
        ("cut.gz", "cannot be read"),
        ("short", "damaged"),
        ("other", "no idx file"),
        ("none", "no idx file at"),
    ):
        with pytest.raises(ValueError, match=text):
            read_idx(tmp_path / name)
    with pytest.raises(ValueError, match="no idx file at"):
        idx_folder(tmp_path)


def test_class_folders(tmp_path):
    for name, shade in (("cat", 10), ("dog", 200)):
        (tmp_path / name).mkdir()
        for k in range(2):
            Image.new("RGB", (9 + k, 8), (shade, 0, 0)).save(tmp_path / name / f"{k}.png")
    with pytest.raises(ValueError, match="give a size"):
        class_folders(tmp_path)
    found = class_folders(tmp_path, size=6)
    assert found.classes == ("cat", "dog")
    assert found.shape == (3, 6, 6)
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert int(found[3][0][0].float().mean()) == 200
    with pytest.raises(ValueError, match="0 class folders"):
        class_folders(tmp_path / "cat")
    (tmp_path / "eel").mkdir()
    with pytest.raises(ValueError, match="eel holds no image"):
        class_folders(tmp_path, size=6)


def test_labels_outside_the_classes_are_refused():
    images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="0 to 2"):
        LabeledImages(images, torch.tensor([0, 3]), ("a", "b", "c"))
    with pytest.raises(ValueError, match="as many"):
        LabeledImages(images, torch.tensor([0]), ("a", "b", "c"))
    with pytest.raises(ValueError, match="uint8"):
        LabeledImages(images.float(), torch.tensor([0, 1]), ("a", "b", "c"))


def test_a_missing_torchvision_set_says_where_it_looked(tmp_path):
    with pytest.raises(ValueError, match="CIFAR10 is not at"):
        torchvision_set("CIFAR10", tmp_path)
    with pytest.raises(ValueError, match="SVHN"):
        torchvision_set("SVHN", tmp_path)
