"""Denoisers with and without a proof, by how averaged they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import pnp
import stablenet.certificate
from stablenet.certificate import Certificate, CertificateTree
from tests.inventory.networks import ARCHITECTURES, wild_denoiser


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


class SoftThreshold(nn.Module):
    """The proximal operator of sigma |x|_1."""

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return torch.sign(x) * (x.abs() - sigma).clamp(min=0)


class Affine(nn.Module):
    """1/2 + factor (x - 1/2) with a claimed certificate: a contraction, or, if factor > 1, a lie."""

    def __init__(self, factor: float, claimed: Certificate) -> None:
        super().__init__()
        self.factor, self.claimed = factor, claimed

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return 0.5 + self.factor * (x - 0.5)


@stablenet.certificate.rule(SoftThreshold)
def _soft_threshold(module: SoftThreshold) -> CertificateTree:
    return CertificateTree("SoftThreshold", Certificate(1.0, 0.5), "a proximal operator")


@stablenet.certificate.rule(Affine)
def _affine(module: Affine) -> CertificateTree:
    return CertificateTree("Affine", module.claimed, "claimed")


DENOISERS: dict[str, Callable[[], nn.Module]] = {
    "firm": Shrinkage,
    "averaged": lambda: Shrinkage(step=0.2),
    "nonexpansive": lambda: Shrinkage(step=0.25),
    "contractive": lambda: Affine(0.9, Certificate(0.9)),
    "prox": SoftThreshold,
    "clipped": lambda: pnp.Clipped(Shrinkage()),
    "clipped-averaged": lambda: pnp.Clipped(Shrinkage(step=0.2)),
    "relaxed-clipped": lambda: pnp.Relaxed(pnp.Clipped(Shrinkage()), 0.6),
    "deepinv": lambda: pnp.DeepinvDenoiser(Shrinkage()),
    "network": lambda: wild_denoiser(ARCHITECTURES["anchored"]),
}
