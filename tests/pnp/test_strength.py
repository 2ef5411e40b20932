"""The default strength restores every kind of physics: within a decibel of the best level tried."""

from __future__ import annotations

import math

import deepinv
import pytest
import skimage.data
import torch
from torch import Tensor

import pnp
import stablenet
from stablenet.images.quality import psnr

SIZE = 32


def picture(channels: int) -> Tensor:
    color = torch.from_numpy(skimage.data.astronaut()[20 : 20 + 3 * SIZE : 3, 180 : 180 + 3 * SIZE : 3].copy()).float() / 255
    return color.permute(2, 0, 1)[None] if channels == 3 else color.mean(2)[None, None].repeat(1, channels, 1, 1)


def mask(share: float) -> Tensor:
    return (torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) < share).float()


def lines() -> Tensor:
    sampled = torch.zeros(1, 1, SIZE, SIZE)
    sampled[..., ::3] = sampled[..., SIZE // 2 - 2 : SIZE // 2 + 2] = 1
    return sampled


def gaussian() -> Tensor:
    x = torch.exp(-((torch.arange(7) - 3.0) ** 2) / 4)
    return (x[:, None] * x / x.sum() ** 2)[None, None]


GRAY = (1, SIZE, SIZE)
CASES = {
    "denoising": (lambda: deepinv.physics.Denoising(), 1, 0.05),
    "inpainting": (lambda: deepinv.physics.Inpainting(img_size=GRAY, mask=mask(0.5)), 1, 0.002),
    "inpainting-few": (lambda: deepinv.physics.Inpainting(img_size=GRAY, mask=mask(0.25)), 1, 0.01),
    "mri": (lambda: deepinv.physics.MRI(img_size=(2, SIZE, SIZE), mask=lines()), 2, 0.003),
    "demosaicing": (lambda: deepinv.physics.Demosaicing(img_size=(3, SIZE, SIZE)), 3, 0.01),
    "blur": (lambda: deepinv.physics.BlurFFT(img_size=GRAY, filter=gaussian()), 1, 0.02),
    "superresolution": (lambda: deepinv.physics.Downsampling(GRAY, filter="bicubic", factor=2, padding="circular"), 1, 0.01),
    "tomography": (lambda: deepinv.physics.Tomography(angles=40, img_width=SIZE, circle=False, normalize=False), 1, 0.4),
}

SLOW = ("inpainting", "inpainting-few", "demosaicing")


@pytest.mark.parametrize("name", CASES)
def test_the_default_is_close_to_the_best_level(name: str) -> None:
    make, channels, noise_level = CASES[name]
    truth, physics = picture(channels), make()
    clean = physics.A(truth)
    y = clean + noise_level * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    y = y * physics.mask if name.startswith("inpainting") else y
    problem, prior = pnp.pose(y, physics, noise_level=noise_level), pnp.prior(stablenet.pretrained("denoiser-gray-small"))

    def solved(level: float | None) -> pnp.Solution:
        stop = pnp.Stop(1e-4, 150)
        return pnp.solve(pnp.PGD(), problem, prior, scheme=pnp.Anderson(), stop=stop, denoiser_noise_level=level)

    default = solved(None)
    level, gained = default.denoiser_noise_level, psnr(default.estimate, truth)
    slow = name in SLOW  # half of it would not arrive within the budget
    for other in (2 * level,) if slow else (level / 2, 2 * level):
        assert gained > psnr(solved(other).estimate, truth) - 1


def test_behind_a_blur_it_is_as_measured() -> None:
    physics = deepinv.physics.BlurFFT(img_size=GRAY, filter=gaussian())
    problem = pnp.pose(physics.A(picture(1)), physics, noise_level=0.03)
    prior = pnp.prior(stablenet.pretrained("denoiser-gray-small"))
    for algorithm in (pnp.PGD(1.0), pnp.ADMM(1.0), pnp.HQS(1.0), pnp.CondatVu(1.0)):
        run = pnp.plan(algorithm, problem, prior)
        assert run.denoiser_noise_level == pytest.approx(0.55 * 0.03 / math.sqrt(run.algorithm.relaxation), rel=1e-12)
