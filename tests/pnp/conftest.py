"""A small certified denoiser, images and physics for the tests of pnp."""

from __future__ import annotations

import deepinv
import pytest
import skimage.data
import torch
from torch import Tensor

from tests.inventory.denoisers import Shrinkage


@pytest.fixture
def make_denoiser() -> type[Shrinkage]:
    return Shrinkage


@pytest.fixture
def denoiser() -> Shrinkage:
    return Shrinkage()


@pytest.fixture(scope="session")
def image() -> Tensor:
    """(1, 1, 48, 48) of the camera photograph, in [0, 1]."""
    picture = torch.from_numpy(skimage.data.camera()[64:256:4, 160:352:4].copy()).float() / 255
    return picture[None, None]


@pytest.fixture(scope="session")
def kernel() -> Tensor:
    """(1, 1, 5, 5), nonnegative, sum 1, not symmetric."""
    weights = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(3))
    return weights / weights.sum()


@pytest.fixture
def physics(kernel: Tensor) -> deepinv.physics.BlurFFT:
    return deepinv.physics.BlurFFT(img_size=(1, 48, 48), filter=kernel)


@pytest.fixture
def measurement(image: Tensor, physics: deepinv.physics.BlurFFT) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return physics.A(image) + 0.03 * noise
