"""A quadratic potential R(x) = <W x, m W x>/2 whose weights m >= 0 a guide has set, and its proximal map, a linear resolvent.

Source: iterative reweighting freezes m = phi(W g)/(W g); for any m >= 0 whatever the map x -> (I + W^T m W)^(-1) x is firmly
nonexpansive (docs/theorems.md, V3).
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor, nn

from stablenet.certificate import CertificateTree, NotCertified
from stablenet.certificate import rule as certificate_rule
from stablenet.networks.checks import check_image
from stablenet.networks.implicit import conjugate_gradients
from stablenet.networks.level import Level
from stablenet.potential import Denoised, Potential, certify, rule
from stablenet.rounding import round_up
from stablenet.spectral import convolution_upper_bound

ACCURACY, ITERATIONS = 1e-3, 200


class Reweighted(nn.Module):
    """R and prox_R for images of the guide's shape, at the noise level that the guide was prepared for.

    Parameters
    ----------
    bank : W, kernels closed under flips, (4 filters, channels, k, k).
    weights : m >= 0, (batch, rows, columns, 4, 4 filters) of the cells of 2 x 2 pixels.
    size : height and width of the images.
    noise_level : (batch,) that of the guide.
    learned : whether a network has set the weights, so that they majorize no potential's energy.

    Raises
    ------
    ValueError : an image of another shape, channel count or dtype, or another noise level than the guide was prepared for.
    """

    bank: Tensor
    weights: Tensor
    noise_level: Tensor

    def __init__(
        self, bank: Tensor, weights: Tensor, size: tuple[int, int], noise_level: Tensor, *, learned: bool = False
    ) -> None:
        super().__init__()
        self.channels, self.size, self.learned = bank.shape[1], size, learned
        for name, value in (("bank", bank), ("weights", weights), ("noise_level", noise_level)):
            self.register_buffer(name, value.detach().clone())

    @property
    def max_noise_level(self) -> float:
        """The next number above the level, which may have been rounded down from the one that was asked for."""
        level = self.noise_level.max()
        return float(torch.nextafter(level, torch.full_like(level, math.inf)))

    @torch.no_grad()
    def gradient(self, x: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """W^T m W x."""
        self._check(x, sigma)
        return Level.linear(self.bank, self.size).weighted(x, self.weights)

    @torch.no_grad()
    def energy_and_gradient(self, x: Tensor, sigma: float | Tensor | None = None) -> tuple[Tensor, Tensor]:
        """<W x, m W x>/2, (batch,), and W^T m W x: the energy is half their inner product."""
        gradient = self.gradient(x, sigma)
        return (x * gradient).sum((1, 2, 3), dtype=torch.float64) / 2, gradient

    def energy(self, x: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """(batch,), at least 0."""
        return self.energy_and_gradient(x, sigma)[0]

    @torch.no_grad()
    def denoise(
        self, y: Tensor, sigma: float | Tensor | None = None, *, accuracy: float = ACCURACY, start: Tensor | None = None
    ) -> Denoised:
        """(I + W^T m W)^(-1) y by conjugate gradients, with the bound |x - exact| <= |x + W^T m W x - y| of the error.

        accuracy : of the root mean square over the pixels of an image.
        start : where the iteration begins, an image that is near the result; y if none is given.
        """
        start = y if start is None else start
        self._check(y, sigma)
        self._check(start, sigma)
        level = Level.linear(self.bank, self.size)

        def operator(x: Tensor) -> Tensor:
            return x + level.weighted(x, self.weights)

        goal = max(accuracy, 8 * torch.finfo(y.dtype).eps) * math.sqrt(y[0].numel())
        x = conjugate_gradients(operator, y, iterations=ITERATIONS, start=start, goal=goal)
        return Denoised(x, torch.linalg.vector_norm((y - operator(x)).flatten(1), dim=1).double())

    def forward(self, x: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """prox_R(x)."""
        return self.denoise(x, sigma).image

    def _check(self, x: Tensor, sigma: float | Tensor | None) -> None:
        check_image(self, x, self.bank.dtype)
        if x.shape[-2:] != self.size or len(self.weights) not in (1, len(x)):
            raise ValueError(f"x must have the guide's shape, {len(self.weights)} images of {self.size}; got {tuple(x.shape)}")
        if sigma is not None:
            asked = torch.as_tensor(sigma, dtype=self.noise_level.dtype).reshape(-1)
            if not torch.allclose(asked.expand(len(self.noise_level)), self.noise_level, rtol=1e-5):
                raise ValueError(
                    f"sigma={float(asked.max()):.6g} but the guide was prepared for {self.max_noise_level:.6g}: prepare it anew"
                )


@rule(Reweighted)
def _potential(module: Reweighted) -> Potential:
    weights = module.weights
    if weights.requires_grad or not bool(torch.isfinite(weights).all()) or not bool((weights >= 0).all()):
        raise NotCertified("the weights of a Reweighted must be finite, >= 0 and without gradient")
    norm, largest = convolution_upper_bound(module.bank), float(weights.max())
    reason = f"quadratic, weights in [0, {largest:.4g}] held fixed, |W| <= {norm:.6g}"
    return Potential(0.0, round_up(Fraction(largest) * Fraction(norm) ** 2), reason)


@certificate_rule(Reweighted)
def _certify(module: Reweighted) -> CertificateTree:
    potential = certify(module)
    return CertificateTree("Reweighted", potential.proximal_certificate, f"a linear resolvent, {potential.reason}")
