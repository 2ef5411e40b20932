"""A ridge potential R(x) = sum over features c and pixels p of psi_c((W x)_(c,p)), convex or weakly convex by construction.

Source: convex and weakly convex ridge regularizers [Goujon2023; Goujon2024], here with one kernel bank closed under flips on a
mirrored image (docs/theorems.md, N4, V1, V2) and conditioned on the noise level by the perspective s^2 psi(./s).
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor, nn

from stablenet.certificate import CertificateTree, NotCertified
from stablenet.certificate import rule as certificate_rule
from stablenet.linear.mirrored import with_flips
from stablenet.networks import profiles
from stablenet.networks.architectures import RidgeArchitecture
from stablenet.networks.checks import KNOTS, check_image, checked_levels, interpolation, is_recorded, require_fixed
from stablenet.networks.implicit import ImplicitProx
from stablenet.networks.level import Level
from stablenet.networks.proximal_point import proximal_map
from stablenet.networks.reweighted import Reweighted
from stablenet.potential import Denoised, Potential, certify, rule
from stablenet.rounding import round_up
from stablenet.spectral import convolution_upper_bound

INITIAL_LOG_SCALE = math.log(0.12)
INITIAL_CURVATURE = 20.0
GRID = 8
"""Points of the frequency grid on which the kernels are normalized, per tap."""

STEEPEST = 36.0
"""The largest slope mu of a profile that is trained: proximal maps take some sqrt(mu) iterations."""

IN_TRAINING = (1e-4, 40)
"""Accuracy and iterations of the proximal map while gradients are recorded."""


class Ridge(nn.Module):
    """R(x, sigma) with its energy, its gradient and, as forward, its proximal map: a denoiser for noise of deviation sigma.

    Images x (batch, channels, height, width) of any size, in [0, 1] plus noise; sigma a float or a tensor (batch,).

    Raises
    ------
    ValueError : x has another shape, channel count or dtype, is empty, holds NaN or infinity; sigma is missing or out of range.
    """

    knots: Tensor

    def __init__(self, architecture: RidgeArchitecture = RidgeArchitecture()) -> None:  # noqa: B008 - frozen
        super().__init__()
        self.architecture = a = architecture
        self.kernels = nn.Parameter(_waves(a))
        self.log_curvature = nn.Parameter(torch.tensor(math.log(INITIAL_CURVATURE)))
        ends = torch.tensor(profiles.knots(a.segments))
        start = torch.where(ends <= 1, 1.0, -a.weak_convexity / INITIAL_CURVATURE)
        self.slopes = nn.Parameter(start.repeat(a.filters, 1))
        self.log_scales = nn.Parameter(torch.full((len(KNOTS), a.filters), INITIAL_LOG_SCALE))
        self.register_buffer("knots", torch.tensor(KNOTS) * (a.max_noise_level / KNOTS[-1]), persistent=False)

    @property
    def beginning(self) -> Ridge:
        """Itself: where it is reweighted, its own estimate is the first guide."""
        return self

    @property
    def channels(self) -> int:
        return self.architecture.channels

    @property
    def max_noise_level(self) -> float:
        return self.architecture.max_noise_level

    def bank(self) -> Tensor:
        """W: the kernels without their mean, with their flips, divided by their norm, (4 filters, channels, k, k)."""
        bank = with_flips(self.kernels - self.kernels.mean((-1, -2), keepdim=True))
        k = bank.shape[-1]
        symbol = torch.fft.rfft2(bank, s=(GRID * k, GRID * k))
        if self.channels == 1:
            largest = symbol.abs().square().sum((0, 1)).amax()
        else:
            gram = torch.einsum("fcxy,fdxy->xycd", symbol.conj(), symbol)
            largest = torch.linalg.eigvalsh(gram)[..., -1].amax()
        return bank * (math.cos(math.pi * (k - 1) / (2 * GRID * k)) ** 2 / largest.sqrt())

    def profile_slopes(self) -> Tensor:
        """(filters, segments): the slopes of phi, in [-rho, mu]."""
        return profiles.within(self.slopes, self.log_curvature.exp(), self.architecture.weak_convexity)

    def scales(self, levels: Tensor) -> Tensor:
        """s (batch, filters), the unit of a feature at each noise level: sigma exp of a linear interpolation."""
        return (levels[:, None] + 1e-7) * torch.exp(interpolation(levels, self.knots) @ self.log_scales)

    def level(self, x: Tensor, sigma: float | Tensor | None) -> Level:
        """The potential at the noise levels of a batch, all that does not depend on x computed once."""
        check_image(self, x, self.kernels.dtype)
        levels = checked_levels(sigma, x, self.max_noise_level)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            return Level(self.bank(), profiles.bends(self.profile_slopes()), self.scales(levels), (x.shape[-2], x.shape[-1]))

    def energy(self, x: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """R(x, sigma) >= 0, (batch,)."""
        return self.energy_and_gradient(x, sigma)[0]

    @torch.no_grad()
    def gradient(self, x: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """W^T phi(W x), of x's shape."""
        return self.level(x, sigma).gradient(x)

    @torch.no_grad()
    def energy_and_gradient(self, x: Tensor, sigma: float | Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Both at the cost of one."""
        return self.level(x, sigma).energy_and_gradient(x)

    @torch.no_grad()
    def denoise(self, y: Tensor, sigma: float | Tensor | None = None, *, accuracy: float = 1e-3) -> Denoised:
        """prox_R(y) = argmin |x - y|^2/2 + R(x, sigma), with a proved bound of its error.

        accuracy : of the root mean square over the pixels of an image; the iteration stops where the bound is below it.
        """
        return proximal_map(self.level(y, sigma).gradient, y, certify(self), accuracy=accuracy)

    @torch.no_grad()
    def prepare(self, guide: Tensor, sigma: float | Tensor) -> Reweighted:
        """The quadratic that iterative reweighting puts above R at the guide: prox of it, with the guide held fixed.

        Raises
        ------
        ValueError : the guide requires a gradient (it would follow x), or is no image of the potential's channels.
        """
        require_fixed(guide)
        levels = checked_levels(sigma, guide, self.max_noise_level)
        _, weights = self.level(guide, levels).looked_at(guide)
        return Reweighted(self.bank(), weights, (guide.shape[-2], guide.shape[-1]), levels)

    def forward(self, x: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """prox_R(x); while gradients are recorded, differentiable in x and in the weights by the implicit function theorem."""
        if is_recorded(self, x):
            half = torch.is_autocast_enabled(x.device.type)
            with torch.autocast(x.device.type, enabled=False):  # which would round images, not differences
                check_image(self, x, self.kernels.dtype)
                scales = self.scales(checked_levels(sigma, x, self.max_noise_level))
                bends = profiles.bends(self.profile_slopes())
                expected = Potential(self.architecture.weak_convexity, float(self.log_curvature.detach().exp()))
                return ImplicitProx.apply(x, self.bank(), bends, scales, expected, *IN_TRAINING, half)
        return self.denoise(x, sigma).image

    @torch.no_grad()
    def enforce(self, *, certified: bool = False) -> None:
        """Bring back what training moves where the potential does not see it, so that its gradient is not lost there.

        Kernels go without their mean on a sphere, slopes into [-rho/mu, 1]: the same potential; mu goes below STEEPEST.
        """
        kernels = self.kernels - self.kernels.mean((-1, -2), keepdim=True)
        self.kernels.copy_(kernels * (math.sqrt(len(kernels)) / kernels.norm().clamp_min(1e-12)))
        self.log_curvature.clamp_(max=math.log(STEEPEST))
        self.slopes.clamp_(-self.architecture.weak_convexity / float(self.log_curvature.exp()), 1.0)

    def constrained_parameters(self) -> tuple[nn.Parameter, ...]:
        """The kernels."""
        return (self.kernels,)

    @torch.no_grad()
    def grown(self, architecture: RidgeArchitecture) -> Ridge:
        """A potential of larger kernels, more segments or another weak convexity that starts close to this one.

        Raises
        ------
        ValueError : other channels, filters or noise levels, smaller kernels or fewer segments.
        """
        a = self.architecture
        fixed = ("channels", "filters", "max_noise_level")
        other = [name for name in fixed if getattr(a, name) != getattr(architecture, name)]
        smaller = [name for name in ("kernel_size", "segments") if getattr(architecture, name) < getattr(a, name)]
        if other or smaller:
            raise ValueError(f"{a} cannot grow to {architecture}: {', '.join(other + smaller)} would not be kept")
        grown, margin = Ridge(architecture).to(self.kernels), (architecture.kernel_size - a.kernel_size) // 2
        kernels = self.kernels - self.kernels.mean((-1, -2), keepdim=True)
        grown.kernels.copy_(nn.functional.pad(kernels, [margin] * 4))
        grown.slopes.copy_(nn.functional.pad(self.slopes, [0, architecture.segments - a.segments]))
        grown.log_curvature.copy_(self.log_curvature)
        grown.log_scales.copy_(self.log_scales)
        return grown.train(self.training)


def _waves(a: RidgeArchitecture) -> Tensor:
    """Windowed plane waves at phase pi/4 over a quarter of the frequencies: with their flips, nearly a tight frame."""
    axes = torch.eye(1)
    if a.channels == 3:
        axes = nn.functional.normalize(torch.tensor([[1.0, 1, 1], [1, -1, 0], [1, 1, -2]]))
    places = torch.arange(a.kernel_size) - (a.kernel_size - 1) / 2
    window = torch.cos(math.pi * places / (a.kernel_size + 1))
    window = window[:, None] * window
    kernels = []
    for index in range(a.filters):
        axis, rest = axes[index % len(axes)], index // len(axes)
        side = max(1, math.isqrt(math.ceil(a.filters / len(axes))))
        row, column = (math.pi * (step + 0.5) / side for step in (rest // side % side, rest % side))
        wave = window * torch.cos(row * places[:, None] + column * places + math.pi / 4)
        wave = wave - window * wave.sum() / window.sum()
        kernels.append(axis.resize_(len(axis))[: a.channels, None, None] * wave / wave.norm())
    return torch.stack(kernels)


@rule(Ridge)
def _potential(ridge: Ridge) -> Potential:
    with torch.no_grad():
        norm, slopes = convolution_upper_bound(ridge.bank()), ridge.profile_slopes()
    low, high = max(0.0, -float(slopes.min())), max(0.0, float(slopes.max()))
    reason = f"slopes in [{-low:.4g}, {high:.4g}], |W| <= {norm:.6g}"
    square = Fraction(norm) ** 2
    return Potential(round_up(Fraction(low) * square), round_up(Fraction(high) * square), reason)


@certificate_rule(Ridge)
def _certify(ridge: Ridge) -> CertificateTree:
    potential = certify(ridge)
    if not potential.has_proximal_map:
        raise NotCertified(
            f"a Ridge of weak convexity <= {potential.weak_convexity:.6g} has no proximal map: it must be below 1"
        )
    kind = (
        "a convex potential"
        if potential.is_convex
        else f"a potential of weak convexity M <= {potential.weak_convexity:.6g}: 1/(1 - M)"
    )
    return CertificateTree("Ridge", potential.proximal_certificate, f"proximal map of {kind}, {potential.reason}")
