"""Denoisers around denoisers: relaxed, projected onto the box, applied to each channel, or handed to deepinv; all certified.

Source: relaxation (1 - l) I + l D of an alpha-averaged map is (l alpha)-averaged, and the projection onto [0, 1]^n is firmly
nonexpansive, so that P D has alpha/(1 - alpha) + 1 [BauschkeCombettes2017; CombettesYamada2015].
"""

from __future__ import annotations

import math

import deepinv
import torch
from torch import Tensor, nn

from stablenet.certificate import Certificate, CertificateTree, certify, rule

PROJECTION = Certificate(1.0, 0.5)


class Relaxed(nn.Module):
    """x -> (1 - l) x + l D(x, sigma): a denoiser made more averaged (l < 1) or stronger (l > 1).

    Parameters
    ----------
    denoiser : called as denoiser(x, sigma).
    weight : l > 0, finite.
    """

    def __init__(self, denoiser: nn.Module, weight: float) -> None:
        super().__init__()
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"a relaxation weight must be finite and positive, got {weight}")
        self.denoiser = denoiser
        self.weight = float(weight)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return torch.lerp(x, self.denoiser(x, sigma), self.weight)


class Clipped(nn.Module):
    """x -> P(D(x, sigma)), P the projection onto [0, 1]: with it a fixed point exists (docs/theorems.md, P7).

    Parameters
    ----------
    denoiser : called as denoiser(x, sigma).
    """

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.denoiser(x, sigma).clamp(0, 1)


class Channelwise(nn.Module):
    """A gray denoiser applied to each channel as an image of its own: a product map, which keeps the certificate.

    Parameters
    ----------
    denoiser : takes (batch, 1, height, width).
    """

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        if isinstance(sigma, Tensor) and sigma.ndim == 1:
            sigma = sigma.repeat_interleave(channels)
        return self.denoiser(x.reshape(batch * channels, 1, height, width), sigma).reshape(x.shape)


class DeepinvDenoiser(deepinv.models.Denoiser):
    """A certified denoiser as a `deepinv.models.Denoiser` that stays frozen and in evaluation mode.

    deepinv's algorithms own their prior and may call `train()` on it; the certificate speaks of the evaluated network,
    so `train()` is answered by staying in evaluation mode.

    Parameters
    ----------
    denoiser : called as denoiser(x, sigma) with x (batch, channels, height, width) in [0, 1].
    """

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser.eval().requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> DeepinvDenoiser:
        return super().train(False)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.denoiser(x, sigma)


@rule(Relaxed)
def _relaxed(module: Relaxed) -> CertificateTree:
    child = certify(module.denoiser)
    return CertificateTree("Relaxed", child.certificate.relax(module.weight), f"weight {module.weight:.6g}", (child,))


@rule(Clipped)
def _clipped(module: Clipped) -> CertificateTree:
    child = certify(module.denoiser)
    return CertificateTree("Clipped", child.certificate.then(PROJECTION), "projected onto [0, 1]", (child,))


@rule(Channelwise)
def _channelwise(module: Channelwise) -> CertificateTree:
    child = certify(module.denoiser)
    return CertificateTree("Channelwise", child.certificate, "a product of equal maps", (child,))


@rule(DeepinvDenoiser)
def _deepinv(module: DeepinvDenoiser) -> CertificateTree:
    child = certify(module.denoiser)
    return CertificateTree("DeepinvDenoiser", child.certificate, "the same map", (child,))
