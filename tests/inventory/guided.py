"""A denoiser that is made for a guide, and one that breaks the promise: its guide follows x."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import stablenet.certificate
from stablenet.certificate import Certificate, CertificateTree


def differences(x: Tensor) -> list[Tensor]:
    return [torch.roll(x, -1, dim) - x for dim in (-2, -1)]


class Weighted(nn.Module):
    """x - h D^T m(guide) D x, D periodic differences, |D|^2 <= 8, weights m in [0, 1] of the guide: (4 h)-averaged, linear."""

    def __init__(self, guide: Tensor, sigma: float, step: float, follows: bool = False) -> None:
        super().__init__()
        self.step, self.follows, self.sigma = step, follows, sigma
        self.register_buffer("guide", guide)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        guide = x if self.follows else self.guide
        for d, g, dim in zip(differences(x), differences(guide), (-2, -1), strict=True):
            weighted = d * torch.exp(-((g / self.sigma) ** 2))
            x = x - self.step * (torch.roll(weighted, 1, dim) - weighted)
        return x


@stablenet.certificate.rule(Weighted)
def _weighted(module: Weighted) -> CertificateTree:
    first = Certificate(1.0, 2 * module.step)  # each direction has |D|^2 <= 4
    return CertificateTree("Weighted", first.then(first), "gradient steps with weights of the guide")


class Guided(nn.Module):
    """prepare(guide, sigma) gives a `Weighted`."""

    channels = 1
    max_noise_level = 50 / 255

    def __init__(self, step: float = 0.2, follows: bool = False) -> None:
        super().__init__()
        self.step, self.follows = step, follows

    def prepare(self, guide: Tensor, sigma: float) -> Weighted:
        return Weighted(guide, sigma, self.step, self.follows)
