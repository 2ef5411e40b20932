"""Denoisers made ready for an algorithm: evaluated, frozen, certified from their weights, relaxed, one noise level.

Source: relaxation (1 - l) I + l D of an alpha-averaged map is (l alpha)-averaged [BauschkeCombettes2017].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import deepinv
import torch
from torch import Tensor, nn

import stablenet.certificate
from pnp.guarantees import Refused
from stablenet.certificate import Certificate, CertificateTree, NotCertified

DEFAULT_MAX_NOISE_LEVEL = 1.0


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


@stablenet.certificate.rule(Relaxed)
def _relaxed(module: Relaxed) -> CertificateTree:
    child = stablenet.certificate.certify(module.denoiser)
    return CertificateTree("Relaxed", child.certificate.relax(module.weight), f"weight {module.weight:.6g}", (child,))


@stablenet.certificate.rule(Channelwise)
def _channelwise(module: Channelwise) -> CertificateTree:
    child = stablenet.certificate.certify(module.denoiser)
    return CertificateTree("Channelwise", child.certificate, "a product of equal maps", (child,))


@stablenet.certificate.rule(DeepinvDenoiser)
def _deepinv(module: DeepinvDenoiser) -> CertificateTree:
    child = stablenet.certificate.certify(module.denoiser)
    return CertificateTree("DeepinvDenoiser", child.certificate, "the same map", (child,))


@dataclass(frozen=True)
class PreparedDenoiser:
    """A frozen denoiser with its certificate and the largest noise level it was made for; `at` fixes the level."""

    module: nn.Module
    tree: CertificateTree
    max_noise_level: float

    @property
    def certificate(self) -> Certificate:
        return self.tree.certificate

    def at(self, noise_level: float, relaxation: float = 1.0) -> DenoiserAtLevel:
        """x -> (1 - l) x + l D(x, noise_level), l = relaxation.

        Raises
        ------
        ValueError : noise_level is not in [0, max_noise_level].
        """
        if not 0 <= noise_level <= self.max_noise_level:
            raise ValueError(
                f"denoiser_noise_level={noise_level:.4g} is outside the range [0, {self.max_noise_level:.4g}] of the "
                "denoiser: pass a denoiser_noise_level within it, or a denoiser made for stronger noise"
            )
        module = self.module if relaxation == 1 else Relaxed(self.module, relaxation)
        return DenoiserAtLevel(module, float(noise_level))


@dataclass(frozen=True)
class DenoiserAtLevel:
    """The map x -> D(x, noise_level) that an algorithm iterates."""

    module: nn.Module
    noise_level: float

    def __call__(self, x: Tensor) -> Tensor:
        return self.module(x, self.noise_level)


def prepare(denoiser: nn.Module, *, channels: int) -> PreparedDenoiser:
    """Put a denoiser in evaluation mode, freeze it, fit it to the number of channels and certify it from its weights.

    The module itself is switched (`eval`, `requires_grad_(False)`): its certificate speaks of nothing else.

    Parameters
    ----------
    denoiser : called as denoiser(x, sigma); its attributes `channels` and `max_noise_level` are honored if present.
    channels : of the images; a gray denoiser is applied channel by channel.

    Raises
    ------
    Refused : no certificate rule speaks of the denoiser, so that no theorem can.
    ValueError : a denoiser for another number of channels.
    TypeError : not a torch module.
    """
    if not isinstance(denoiser, nn.Module):
        raise TypeError(f"a denoiser must be a torch.nn.Module, got {type(denoiser).__name__}")
    denoiser.eval().requires_grad_(False)
    expected = getattr(denoiser, "channels", None)
    max_noise_level = float(getattr(denoiser, "max_noise_level", DEFAULT_MAX_NOISE_LEVEL))
    module = denoiser
    if expected == 1 and channels != 1:
        module = Channelwise(denoiser)
    elif expected is not None and expected != channels:
        raise ValueError(f"the denoiser takes {expected} channels but the image has {channels}")
    try:
        tree = stablenet.certificate.certify(module)
    except NotCertified as error:
        raise Refused(f"no theorem covers a denoiser without a certificate: {error}") from error
    return PreparedDenoiser(module, tree, max_noise_level)
