"""Patches behind motion blurs that are drawn at random, for guides as deblurring makes them; no kernel of a test is among them.

Source: trajectories of deepinv's MotionBlurGenerator, softened; y = k * x + n, circular on the patch, a loss sees its middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from deepinv.physics.generator import MotionBlurGenerator
from pool import Batch
from torch import Tensor
from torch.nn import functional

from pnp import strengths

SIDE, MARGIN = 25, 12
STRENGTH = 0.7
LEVELS, NOISE = (3.0, 5.0), (0.005, 0.06)
"""The denoiser's level as a multiple of the noise, and the standard deviation of the noise."""


@dataclass(frozen=True)
class Blur:
    """y = A x + n with A by its transfer function (batch, 1, height, columns), n of one standard deviation an image."""

    transfer: Tensor
    noise: Tensor

    def normal(self, x: Tensor) -> Tensor:
        """A^T A x."""
        return self._by(self.transfer.abs().square(), x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._by(self.transfer.conj(), y)

    def forward(self, x: Tensor) -> Tensor:
        return self._by(self.transfer, x)

    @staticmethod
    def _by(transfer: Tensor, x: Tensor) -> Tensor:
        return torch.fft.irfft2(transfer * torch.fft.rfft2(x), s=x.shape[-2:])


def kernels(count: int, generator: torch.Generator) -> Tensor:
    """(count, SIDE, SIDE), nonnegative, of sum one, centered: trajectories of random length and curvature, softened."""
    found = []
    for _ in range(count):
        curvature, spread, soft = (torch.rand(3, generator=generator) * torch.tensor([0.5, 0.4, 0.7])).tolist()
        drawn = MotionBlurGenerator((SIDE, SIDE), l=0.1 + curvature, sigma=0.12 + spread).step(
            1, seed=int(torch.randint(2**31, (), generator=generator))
        )
        reach = torch.arange(-2, 3) / (0.3 + soft)
        profile = torch.exp(-reach.square() / 2)
        gaussian = profile[:, None] * profile
        kernel = functional.conv2d(drawn["filter"], gaussian[None, None], padding=2)
        found.append(kernel[0, 0] / kernel.sum())
    return torch.stack(found)


@dataclass
class Blurred(Batch):
    """Patches whose `noisy` is behind a blur; their levels are those that a deblurring takes for its noise."""

    blur: Blur | None = None

    @property
    def shares(self) -> Tensor:
        """What R counts beside |A x - y|^2/2: (batch,)."""
        assert self.blur is not None
        return STRENGTH * (self.blur.noise / self.levels).square()


def behind(clean: Tensor, generator: torch.Generator, largest: float, noise: float | None = None) -> Blurred:
    """Patches behind blurs, with noise of one standard deviation an image, drawn unless given."""
    size, count = (clean.shape[-2], clean.shape[-1]), len(clean)
    padded = torch.zeros(count, 1, *size)
    padded[:, 0, :SIDE, :SIDE] = kernels(count, generator)
    transfer = torch.fft.rfft2(padded.roll((-(SIDE // 2), -(SIDE // 2)), (-2, -1)))
    low, high = (math.log(n) for n in NOISE)
    share, factor = torch.rand(2, count, generator=generator)
    deviations = (low + (high - low) * share).exp() if noise is None else torch.full((count,), noise)
    multiples = LEVELS[0] + (LEVELS[1] - LEVELS[0]) * factor if noise is None else torch.full((count,), sum(LEVELS) / 2)
    blur = Blur(transfer, deviations)
    noisy = blur.forward(clean) + deviations[:, None, None, None] * torch.randn(clean.shape, generator=generator)
    return Blurred(clean, noisy, (deviations * multiples).clamp_max(0.999 * largest), blur=blur)


def beginnings(blur: Blur) -> tuple[Tensor, Tensor]:
    """Levels and weights of the potential's own runs, as `pnp.Descent` settles them."""
    found = [strengths.chosen("Descent", "weakly-convex", float(noise)) for noise in blur.noise]
    levels, shares = torch.tensor([pair for pair in found if pair is not None]).T
    return levels * blur.noise, shares / levels.square()
