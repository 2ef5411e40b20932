"""A small certified denoiser, images and physics for the tests of pnp."""

from __future__ import annotations

import deepinv
import pytest
import skimage.data
import torch
from torch import Tensor, nn

import stablenet.certificate
from stablenet.certificate import Certificate, CertificateTree


class Shrinkage(nn.Module):
    """x - h A^T clamp(A x, -t sigma, t sigma), A periodic differences, |A|^2 <= 8: an Euler step, (4 h)-averaged."""

    channels = 1
    max_noise_level = 50 / 255

    def __init__(self, step: float = 0.125, threshold: float = 3.0, steps: int = 1) -> None:
        super().__init__()
        self.step, self.threshold, self.steps = step, threshold, steps
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        limit = torch.as_tensor(sigma, dtype=x.dtype) * self.threshold * self.scale.to(x.dtype)
        limit = limit.reshape(-1, 1, 1, 1)
        for _ in range(self.steps):
            for_x = [torch.roll(x, -1, dim) - x for dim in (-2, -1)]
            for_x = [torch.maximum(torch.minimum(d, limit), -limit) for d in for_x]
            x = x - self.step * sum(torch.roll(d, 1, dim) - d for d, dim in zip(for_x, (-2, -1), strict=True))
        return x


@stablenet.certificate.rule(Shrinkage)
def _shrinkage(module: Shrinkage) -> CertificateTree:
    step = Certificate(1.0, 4 * module.step)
    total = stablenet.certificate.compose([step] * module.steps)
    return CertificateTree("Shrinkage", total, "Euler steps")


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
