"""A ridge potential whose features are weighed, at every pixel, by a network that looks at a guide held fixed.

Source: docs/theorems.md, V3: the weights may come from anywhere, the map in x is a linear resolvent for every guide. They
begin as those of iterative reweighting, m = phi(W g)/(W g), and learn from all features around, as in spatially adaptive
weighted least squares [Pourya2025].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet.certificate import Certificate, CertificateTree, NotCertified, certify
from stablenet.certificate import rule as certificate_rule
from stablenet.networks.checks import check_image, checked_levels, checked_noise, is_recorded, require_fixed
from stablenet.networks.implicit import ImplicitResolvent
from stablenet.networks.reweighted import Reweighted
from stablenet.networks.ridge import Ridge

REFERENCE = 25 / 255
LARGEST_RATIO = 5.0
"""Of the level to the noise of the measurement, beyond which a network sees no difference."""
SMALLEST, LARGEST = 3e-5, 0.98


@dataclass(frozen=True)
class Guidance:
    """What a `Guided` is made of.

    Parameters
    ----------
    ridge : the potential that it begins with, a `Ridge`.
    width : channels of the network that sets the weights.
    dilations : of its convolutions of 3 x 3 cells, one layer each.
    steepest : the largest weight, in (0, inf).
    """

    ridge: nn.Module
    width: int
    dilations: tuple[int, ...]
    steepest: float


class Weighing(nn.Module):
    """Features v = W g/s and noise levels to weights in (0, steepest): a residual network on cells of 2 x 2 pixels."""

    def __init__(self, features: int, width: int, dilations: tuple[int, ...], steepest: float) -> None:
        super().__init__()
        self.steepest = steepest
        self.inp = nn.Conv2d(2 * features + 2, width, 1)
        self.body = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in dilations)
        self.out = nn.Conv2d(width, features, 1)
        nn.init.zeros_(self.out.weight)
        if self.out.bias is not None:
            nn.init.zeros_(self.out.bias)

    def forward(self, v: Tensor, weight: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
        """(batch, features, rows, columns), steepest sigmoid(logit(weight/steepest) + what was learned).

        levels (batch,) of the map, noise (batch,) of the measurement behind the guide. The network sees log(1 + |v|), with
        and without the sign of v, and the logarithms of the level and of its ratio to the noise.
        """
        ratio = ((levels + 1e-7) / (noise + 1e-7)).clamp(1 / LARGEST_RATIO, LARGEST_RATIO)
        told = torch.log(torch.stack([(levels + 1e-7) / REFERENCE, ratio], 1))[:, :, None, None]
        size = torch.log1p(v.abs())
        hidden = self.inp(torch.cat([size, torch.copysign(size, v), told.expand(len(v), 2, *v.shape[2:])], 1))
        for layer in self.body:
            hidden = hidden + layer(functional.relu(hidden))
        share = (weight / self.steepest).clamp(SMALLEST, LARGEST)
        return self.steepest * torch.sigmoid(torch.logit(share) + self.out(functional.relu(hidden)).to(share.dtype))


class Guided(nn.Module):
    """D_g(x, sigma) = (I + W^T m(g) W)^(-1) x, firmly nonexpansive in x for every guide g that is held fixed.

    Images x (batch, channels, height, width) in [0, 1] plus noise, the guide an image of the same shape, sigma in
    [0, max_noise_level]. `prepare` computes the weights once; what comes out of it is the denoiser for an iteration.

    The map y -> D_(g(y))(y) that `denoise` computes is not covered: a guide must not follow x.
    """

    def __init__(self, guidance: Guidance) -> None:
        super().__init__()
        if type(guidance.ridge) is not Ridge:
            raise ValueError(f"ridge must be a Ridge, got {type(guidance.ridge).__name__}")
        if not (guidance.width > 0 and guidance.dilations and min(guidance.dilations) > 0 and guidance.steepest > 0):
            raise ValueError(f"width, dilations and steepest must be positive, got {guidance}")
        self.ridge = guidance.ridge
        features = 16 * guidance.ridge.architecture.filters
        self.weighing = Weighing(features, guidance.width, guidance.dilations, guidance.steepest)
        self.width, self.dilations = guidance.width, guidance.dilations

    @property
    def guidance(self) -> Guidance:
        return Guidance(self.ridge, self.width, self.dilations, self.weighing.steepest)

    @property
    def beginning(self) -> Ridge:
        """The potential whose own estimate is the first guide."""
        return self.ridge

    @property
    def channels(self) -> int:
        return self.ridge.channels

    @property
    def max_noise_level(self) -> float:
        return self.ridge.max_noise_level

    def prepare(self, guide: Tensor, sigma: float | Tensor) -> Reweighted:
        """x -> D_guide(x, sigma), the guide an image with noise of this level or what was made of one; see `prepare_behind`."""
        return self.prepare_behind(guide, sigma, sigma)

    def prepare_behind(self, guide: Tensor, sigma: float | Tensor, noise_level: float | Tensor) -> Reweighted:
        """x -> D_guide(x, sigma), the guide restored from a measurement of this noise level; the weights are computed here.

        Raises
        ------
        ValueError : the guide requires a gradient (it would follow x), or is no image of the network's channels; a noise level
            that is negative or not finite.
        """
        require_fixed(guide)
        check_image(self, guide, self.ridge.kernels.dtype)
        levels = checked_levels(sigma, guide, self.max_noise_level)
        noise = checked_noise(noise_level, guide)
        with torch.no_grad():
            found = self.weights(guide, levels, noise)
            return Reweighted(self.ridge.bank(), found, (guide.shape[-2], guide.shape[-1]), levels, learned=True)

    def weights(self, guide: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
        """m (batch, rows, columns, 4, 4 filters) of cells, differentiable in the weights of the network that sets them."""
        with torch.no_grad(), torch.autocast(guide.device.type, enabled=False):
            v, weight = self.ridge.level(guide, levels).looked_at(guide)
        shape = v.shape
        seen = (t.flatten(3).permute(0, 3, 1, 2) for t in (v, weight))
        return self.weighing(*seen, levels, noise).permute(0, 2, 3, 1).reshape(shape)

    @torch.no_grad()
    def denoise(self, y: Tensor, sigma: float | Tensor, *, refreshes: int = 2) -> Tensor:
        """y denoised: the ridge's estimate is the first guide, each result the next; no Lipschitz bound holds of this map."""
        guide = self.ridge(y, sigma)
        for _ in range(refreshes):
            guide = self.prepare(guide, sigma).denoise(y, start=guide).image
        return guide

    def forward(self, x: Tensor, sigma: float | Tensor | None = None, *, guide: Tensor | None = None) -> Tensor:
        """D_guide(x, sigma); while gradients are recorded, differentiable in x and in the network that sets the weights.

        Raises
        ------
        ValueError : no guide, or one that requires a gradient.
        """
        if guide is None or sigma is None:
            raise ValueError("a guided denoiser needs a guide: prepare(guide, sigma) gives the denoiser of an iteration")
        if is_recorded(self.weighing, x):
            require_fixed(guide)
            check_image(self, x, self.ridge.kernels.dtype)
            levels = checked_levels(sigma, guide, self.max_noise_level)
            found = self.weights(guide, levels, levels)
            half = torch.is_autocast_enabled(x.device.type)
            return ImplicitResolvent.apply(x, self.ridge.bank().detach(), found, half)
        return self.prepare(guide, sigma)(x)


@certificate_rule(Guided)
def _certify(module: Guided) -> CertificateTree:
    if type(module.ridge) is not Ridge or type(module.weighing) is not Weighing or not module.weighing.steepest > 0:
        raise NotCertified(f"a Guided of {module.ridge!r} and {module.weighing!r} has no proof")
    child = certify(module.ridge)
    reason = "in x, for every guide held fixed: a linear resolvent; y -> D_(g(y))(y) is not covered"
    return CertificateTree("Guided", Certificate(1.0, 0.5), reason, (child,))
