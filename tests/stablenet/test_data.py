"""Images in [0, 1], patches and noise that repeat, and one clear error for each bad file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from stablenet.evaluation import evaluate
from stablenet.images.photographs import BUNDLED, BundledPhotographs, FolderImages, add_noise, as_image, random_patches
from stablenet.images.quality import psnr


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_bundled_photographs():
    photographs = BundledPhotographs()
    assert len(photographs) == len(BUNDLED)
    assert all(image.dtype == torch.uint8 and image.shape[0] == 1 for image in photographs)
    assert BundledPhotographs(channels=3, names=("camera", "chelsea"))[0].shape[0] == 3


def test_items_of_every_kind_become_images():
    array = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    color = as_image(array, 3)
    assert color.shape == (3, 6, 8)
    assert torch.equal(color, torch.from_numpy(array).permute(2, 0, 1))
    luma = (array @ np.array([0.299, 0.587, 0.114])).round()
    assert np.abs(as_image(array, 1)[0].numpy() - luma).max() <= 1
    assert as_image(Image.fromarray(array), 1).shape == (1, 6, 8)
    assert as_image((torch.rand(3, 6, 8), 7), 1).shape == (1, 6, 8)
    assert as_image(array[..., 0], 3).shape == (3, 6, 8)
    assert as_image(np.dstack([array, array[..., :1]]), 3).shape == (3, 6, 8)
    assert torch.equal(as_image(array[..., :2], 1)[0], torch.from_numpy(array[..., 0].copy()))


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (torch.rand(4), "shape"),
        (torch.rand(0, 3), "shape"),
        (torch.rand(2, 3, 4, 5), "shape"),
        (torch.full((1, 2, 2), float("nan")), r"lie in \[0, 1\]"),
        (255 * torch.rand(1, 4, 4) + 2, r"lie in \[0, 1\]"),
        (-torch.rand(1, 4, 4) - 1, r"lie in \[0, 1\]"),
        (torch.full((1, 4, 4), 4095, dtype=torch.int32), "255"),
        (np.full((4, 4), 65535, dtype=np.uint16), "255"),
        (torch.full((1, 4, 4), -3, dtype=torch.int64), "255"),
    ],
)
def test_bad_items_are_refused(item, text):
    with pytest.raises(ValueError, match=text):
        as_image(item, 1)


def test_masks_are_black_and_white():
    mask = torch.tensor([[True, False], [False, True]])
    assert as_image(mask, 1).float().max() in (1.0, 255.0)


def test_folders(tmp_path):
    (tmp_path / "deep").mkdir()
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    Image.fromarray(pixels).save(tmp_path / "b.png")
    Image.fromarray(255 - pixels).save(tmp_path / "deep" / "a.TIFF")
    Image.fromarray(np.dstack([pixels] * 4)).save(tmp_path / "c.png")
    (tmp_path / "notes.txt").write_text("not an image")
    images = FolderImages([tmp_path])
    assert len(images) == 3
    assert torch.equal(images[0][0], torch.from_numpy(pixels))
    assert len(FolderImages([tmp_path], exclude=("c.png",))) == 2
    assert FolderImages([tmp_path], channels=3)[0].shape == (3, 6, 8)


def test_sixteen_bit_files_keep_their_contrast(tmp_path):
    ramp = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    image = FolderImages([tmp_path])[0].float()
    assert float((image / 255 - torch.from_numpy(ramp.astype(np.float32)) / 65535).abs().max()) < 0.01


def test_twelve_bits_in_sixteen_are_told(tmp_path):
    Image.fromarray(np.full((6, 8), 4095, np.uint16)).save(tmp_path / "dark.png")
    (note,) = FolderImages([tmp_path]).notes
    assert "dark.png: 16-bit samples reach 4095 of 65535 only" in note


def test_pictures_are_upright_and_without_transparency(tmp_path):
    """The same decoder as everywhere: a camera's orientation is honored, transparency is white."""
    picture = Image.fromarray(np.zeros((6, 8, 4), dtype=np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    (image,) = FolderImages([tmp_path])
    assert image.shape == (1, 8, 6) and int(image.min()) == 255


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="no folder of images"):
        FolderImages([tmp_path / "absent"])
    with pytest.raises(ValueError, match="holds no image: expected files ending in .png"):
        FolderImages([tmp_path])
    (tmp_path / "broken.png").write_bytes(b"not a png")
    with pytest.raises(ValueError, match="cannot read the image .*broken.png"):
        FolderImages([tmp_path])
    Image.fromarray(np.zeros((40, 40), dtype=np.uint8)).save(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "broken.png").read_bytes()[:-30])
    with pytest.raises(ValueError, match="broken.png"):
        FolderImages([tmp_path])


def test_patches_repeat_and_lie_in_the_images():
    data = BundledPhotographs(names=("camera", "moon"))
    one = random_patches(data, count=5, size=16, channels=1, generator=generator(1))
    two = random_patches(data, count=5, size=16, channels=1, generator=generator(1))
    three = random_patches(data, count=5, size=16, channels=1, generator=generator(2))
    assert one.shape == (5, 1, 16, 16)
    assert one.dtype == torch.float32
    assert 0 <= float(one.min()) <= float(one.max()) <= 1
    assert one.equal(two)
    assert not one.equal(three)


def test_a_patch_of_the_whole_image_is_the_image_up_to_a_symmetry():
    class One(torch.utils.data.Dataset):
        picture = torch.rand(1, 9, 9, generator=generator())

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return self.picture

    seen = random_patches(One(), count=16, size=9, channels=1, generator=generator(3))
    forms = [p for q in (One.picture, One.picture.transpose(1, 2)) for p in (q, q.flip(2))]
    assert all(any(patch.equal(form) for form in forms) for patch in seen)
    assert len({patch.numpy().tobytes() for patch in seen}) == 4


def test_empty_datasets_are_refused():
    with pytest.raises(ValueError, match="empty"):
        random_patches(torch.utils.data.TensorDataset(torch.zeros(0, 1)), count=1, size=8, channels=1, generator=generator())


def test_noise_has_its_level_and_repeats():
    image = torch.zeros(3, 1, 64, 64)
    noisy = add_noise(image, torch.tensor([0.0, 0.1, 1.0]), generator())
    assert noisy[0].abs().max() == 0
    assert noisy[1].std().item() == pytest.approx(0.1, rel=0.05)
    assert noisy[2].std().item() == pytest.approx(1.0, rel=0.05)
    assert noisy.equal(add_noise(image, torch.tensor([0.0, 0.1, 1.0]), generator()))
    torch.testing.assert_close(noisy[2], add_noise(image, 1.0, generator())[2])


def test_psnr_and_evaluation():
    assert psnr(torch.zeros(4), torch.full((4,), 0.1)) == pytest.approx(20, abs=1e-4)

    class Through(torch.nn.Module):
        channels = 1

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x, sigma):
            return x

    table = evaluate(Through(), BundledPhotographs(names=("camera",)), (0.1,))
    assert table[0.1] == pytest.approx(20, abs=0.1)
