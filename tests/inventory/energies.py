"""Explicit potentials with exact constants, convex and weakly convex: denoisers by their proximal operator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import stablenet.certificate
import stablenet.potential
from stablenet.certificate import Certificate, CertificateTree, NotCertified
from stablenet.potential import Denoised, Potential


class Bent(nn.Module):
    """R(x) = sum of s^2 psi(u/s) over the periodic differences u of x, |D|^2 <= 8, s = sigma: psi' has the slopes `slopes`.

    psi' rises by mu up to 1, falls by rho from there to `end`, and is constant after: quadratic, then Huber (rho = 0) or bent
    down. So R is (8 rho)-weakly convex, and (8 mu/2) |x|^2 - R is convex.
    """

    channels = 1
    max_noise_level = 0.5

    def __init__(self, mu: float = 0.5, rho: float = 0.0, end: float = 4.0) -> None:
        super().__init__()
        self.mu, self.rho, self.end = mu, rho, end

    def _slope(self, v: Tensor) -> Tensor:
        rising = v.clamp(-1, 1)
        return self.mu * rising - self.rho * (v.clamp(-self.end, self.end) - rising)

    def _value(self, v: Tensor) -> Tensor:
        """The integral of the slope: of clamp(v, -t, t) it is w^2/2 + t (|v| - w), w = min(|v|, t)."""
        v = v.abs()
        near, far = (w * w / 2 + t * (v - w) for t in (1.0, self.end) for w in (v.clamp(max=t),))
        return (self.mu + self.rho) * near - self.rho * far

    def energy(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        total = sum(self._value((torch.roll(x, -1, d) - x).double() / sigma).flatten(1).sum(1) for d in (-2, -1))
        return sigma**2 * total

    def gradient(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        slopes = [self._slope((torch.roll(x, -1, d) - x) / sigma) for d in (-2, -1)]
        return sigma * sum(torch.roll(s, 1, d) - s for s, d in zip(slopes, (-2, -1), strict=True))

    def energy_and_gradient(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        return self.energy(x, sigma), self.gradient(x, sigma)

    def denoise(self, y: Tensor, sigma: float | Tensor, *, accuracy: float = 1e-5) -> Denoised:
        """Gradient steps on |x - y|^2/2 + R(x), which is m-strongly convex: |x - prox| <= |gradient|/m.

        accuracy : of the root mean square over the pixels.
        """
        convexity, x, allowed = 1 - 8 * self.rho, y, accuracy * y[0].numel() ** 0.5
        while True:
            gradient = x - y + self.gradient(x, sigma)
            error = gradient.flatten(1).norm(dim=1) / convexity
            if bool((error <= max(allowed, 50 * torch.finfo(y.dtype).eps * float(y.norm()))).all()):
                return Denoised(x, error)
            x = x - gradient / (1 + 8 * self.mu)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.denoise(x, sigma).image


class Understated(Bent):
    """Claims slopes that are 3 percent smaller than they are."""


@stablenet.potential.rule(Bent)
def _bent(module: Bent) -> Potential:
    return Potential(8 * module.rho, 8 * module.mu, "slopes times |D|^2 <= 8")


@stablenet.potential.rule(Understated)
def _understated(module: Understated) -> Potential:
    true = _bent(module)
    return Potential(0.97 * true.weak_convexity, 0.97 * true.smoothness_above, "claimed")


@stablenet.certificate.rule(Bent)
def _firm(module: Bent) -> CertificateTree:
    if module.rho > 0:
        raise NotCertified("the potential is not convex")
    return CertificateTree("Bent", Certificate(1.0, 0.5), "the proximal operator of a convex potential")


POTENTIALS: dict[str, Callable[[], nn.Module]] = {
    "convex": Bent,
    "convex-steep": lambda: Bent(mu=2.0),
    "weakly": lambda: Bent(mu=1.0, rho=0.1),
    "slightly": lambda: Bent(mu=0.5, rho=0.02),
    "beyond": lambda: Bent(mu=1.5, rho=0.3),
}
