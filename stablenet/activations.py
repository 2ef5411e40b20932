"""Nondecreasing, slope-restricted nonlinearities: each carries its slope interval [low, high] as data.

Source: the blocks need sigma nondecreasing with slope in [0, L] (docs/theorems.md, T1); an elementwise map with
slopes in [a, 1] is (1 - a)/2-averaged (C5). Learned spline nonlinearities in convex regularizers: [Goujon2023].
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from stablenet.certificate import Certificate, CertificateTree, NotCertified, rule
from stablenet.rounding import round_up
from stablenet.rules import Rules
from stablenet.splines import FusedSpline, compiled, evaluated_spline, odd_spline

Slopes = tuple[float, float]
slopes: Rules[Slopes] = Rules(
    "slope interval for the activation",
    NotCertified,
    "known are {known}; register another with @stablenet.activations.slopes({name})",
)
"""(low, high) that holds every slope of an elementwise activation: register with `@slopes(MyActivation)`."""


def slope_interval(activation: nn.Module) -> Slopes:
    """The interval (low, high) that holds every slope of an elementwise activation, by exact class.

    Raises
    ------
    NotCertified : the class is unknown, the instance is altered, or its slopes are not bounded as set.
    """
    low, high = (float(slope) for slope in slopes.of(activation))
    if not -math.inf < low <= high < math.inf:
        raise NotCertified(f"{type(activation).__name__} has slopes in [{low}, {high}]: a finite interval is needed")
    if vars(activation).get("inplace"):
        raise NotCertified(f"{type(activation).__name__} overwrites its input, which others still read: set inplace=False")
    return low, high


def smoothness(activation: nn.Module) -> float:
    """L, the largest slope of an activation fit for a gradient-flow block.

    Raises
    ------
    NotCertified : the activation is unknown or can decrease.
    """
    low, high = slope_interval(activation)
    if low < 0:
        raise NotCertified(
            f"{type(activation).__name__} has slopes in [{low:g}, {high:g}]: a gradient-flow block needs a nondecreasing "
            "activation; use ReLU, LeakyReLU, Softplus, Tanh, Sigmoid, Clamp or LinearSpline"
        )
    return high


@runtime_checkable
class Scaled(Protocol):
    """An activation that takes a scale itself, faster: perspective(u, scale) is scale sigma(u / scale)."""

    def perspective(self, u: Tensor, scale: Tensor) -> Tensor: ...


def perspective(activation: nn.Module, u: Tensor, scale: Tensor | None) -> Tensor:
    """s sigma(u / s): the same slopes, another scale (docs/theorems.md, T5); s > 0 broadcasts against u."""
    if scale is None:
        return activation(u)
    return activation.perspective(u, scale) if isinstance(activation, Scaled) else scale * activation(u / scale)


SOFTPLUS_THRESHOLD = 36.0


class Softplus(nn.Module):
    """log(1 + exp(beta u)) / beta by `torch.logaddexp`: smooth and nondecreasing everywhere, without torch's threshold.

    Parameters
    ----------
    beta : sharpness, finite and positive.
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        if not (beta > 0 and math.isfinite(beta)):
            raise ValueError(f"Softplus needs a finite beta > 0, got {beta}")
        self.beta = float(beta)

    def forward(self, u: Tensor) -> Tensor:
        return torch.logaddexp(self.beta * u, torch.zeros((), dtype=u.dtype, device=u.device)) / self.beta


class Clamp(nn.Module):
    """clamp(u, -t, t) with a learned threshold t > 0 a channel: the gradient of a Huber function, slopes in [0, 1].

    Parameters
    ----------
    channels : size of axis 1 of the input (batch, channels, ...).
    threshold : initial t.
    """

    def __init__(self, channels: int, *, threshold: float = 1.0) -> None:
        super().__init__()
        if channels < 1 or not (threshold > 0 and math.isfinite(threshold)):
            raise ValueError(f"Clamp needs channels >= 1 and a finite threshold > 0, got {channels}, {threshold}")
        self.log_threshold = nn.Parameter(torch.full((channels,), math.log(threshold)))

    def forward(self, u: Tensor) -> Tensor:
        _expect_channels(self, u, len(self.log_threshold))
        t = self.log_threshold.exp().repeat_interleave(u.shape[1] // len(self.log_threshold))
        t = t.reshape(-1, *[1] * (u.ndim - 2)).to(u.dtype)
        return torch.maximum(torch.minimum(u, t), -t)


class LinearSpline(nn.Module):
    """A learned nondecreasing odd linear spline a channel, flat beyond its last knot.

    sigma(u) = sign(u) sum_j p_j clamp(|u| - j, 0, 1), slopes p_j = sigmoid(logit_j) in (0, 1) by construction.

    Parameters
    ----------
    channels : size of axis 1 of the input.
    segments : number m of unit segments on each side; the knots are 0, 1, ..., m in units of `scale`.

    forward(u, scale) takes u (batch, channels, ...) and an optional scale > 0 that broadcasts against u, and gives
    scale sigma(u / scale) in one pass.
    """

    def __init__(self, channels: int, *, segments: int = 6) -> None:
        super().__init__()
        if channels < 1 or segments < 1:
            raise ValueError(f"LinearSpline needs channels >= 1 and segments >= 1, got {channels}, {segments}")
        self.logits = nn.Parameter(torch.linspace(3.0, -3.0, segments).repeat(channels, 1))
        self.fused = False

    @property
    def slopes(self) -> Tensor:
        """(channels, segments), each in [0, 1]."""
        return torch.sigmoid(self.logits)

    def perspective(self, u: Tensor, scale: Tensor) -> Tensor:
        return self(u, scale)

    def forward(self, u: Tensor, scale: Tensor | None = None) -> Tensor:
        _expect_channels(self, u, len(self.logits))
        values = self.slopes.repeat_interleave(u.shape[1] // len(self.logits), 0)
        scale = torch.ones((), device=u.device) if scale is None else scale
        if self.fused:
            if u.ndim == 4 and scale.ndim in (0, 4):
                return FusedSpline.apply(u, scale.expand(u.shape[0], u.shape[1], 1, 1), values)
            return compiled(odd_spline)(u, scale, values)
        if torch.is_grad_enabled():
            return odd_spline(u, scale, values)
        return evaluated_spline(u, scale, values)


def _expect_channels(module: nn.Module, u: Tensor, channels: int) -> None:
    if u.ndim < 2 or u.shape[1] % channels:
        what = f"axis 1 to hold {channels} channels (or a multiple), got shape {tuple(u.shape)}"
        raise ValueError(f"{type(module).__name__} expects {what}")


def fuse(model: nn.Module, enabled: bool = True) -> None:
    """Let the splines of a model run as one compiled kernel (needs a C++ compiler on CPU, triton on GPU)."""
    for module in model.modules():
        if isinstance(module, LinearSpline):
            module.fused = enabled


def _finite(module: nn.Module, **settings: float) -> None:
    bad = {name: value for name, value in settings.items() if not math.isfinite(value)}
    if bad:
        raise NotCertified(f"{type(module).__name__} has no slopes with {bad}: its settings must be finite numbers")


@slopes(nn.ReLU, nn.Tanh)
def _unit(module: nn.Module) -> Slopes:
    return 0.0, 1.0


@slopes(nn.Sigmoid)
def _quarter(module: nn.Sigmoid) -> Slopes:
    return 0.0, 0.25


@slopes(nn.LeakyReLU)
def _leaky(module: nn.LeakyReLU) -> Slopes:
    _finite(module, negative_slope=module.negative_slope)
    return min(module.negative_slope, 1.0), max(module.negative_slope, 1.0)


@slopes(nn.Hardtanh)
def _hardtanh(module: nn.Hardtanh) -> Slopes:
    if not module.min_val <= module.max_val:
        raise NotCertified(f"Hardtanh({module.min_val}, {module.max_val}) has no slopes: min_val <= max_val is needed")
    return 0.0, 1.0


@slopes(nn.Softplus)
def _torch_softplus(module: nn.Softplus) -> Slopes:
    """torch jumps down to the identity at its threshold t, by log(1 + exp(-t)) / beta: nothing in float64 from 36 on."""
    _finite(module, beta=module.beta)
    if not module.threshold >= SOFTPLUS_THRESHOLD or module.beta <= 0:
        raise NotCertified(
            f"Softplus(beta={module.beta}, threshold={module.threshold}) jumps down at its threshold: take "
            f"threshold >= {SOFTPLUS_THRESHOLD} and beta > 0, or stablenet.activations.Softplus, which has none"
        )
    return 0.0, 1.0


@slopes(Softplus)
def _softplus(module: Softplus) -> Slopes:
    _finite(module, beta=module.beta)
    if module.beta <= 0:
        raise NotCertified(f"Softplus(beta={module.beta}) has no slopes in [0, 1]: beta > 0 is needed")
    return 0.0, 1.0


@slopes(nn.ELU)
def _elu(module: nn.ELU) -> Slopes:
    _finite(module, alpha=module.alpha)
    return min(module.alpha, 0.0), max(1.0, module.alpha)


@slopes(Clamp)
def _clamp(module: Clamp) -> Slopes:
    if module.log_threshold.ndim != 1:
        raise NotCertified(f"Clamp holds one threshold a channel, got shape {tuple(module.log_threshold.shape)}")
    return 0.0, 1.0


@slopes(LinearSpline)
def _spline(module: LinearSpline) -> Slopes:
    if module.logits.ndim != 2:
        raise NotCertified(f"LinearSpline holds (channels, segments) slopes, got shape {tuple(module.logits.shape)}")
    return 0.0, 1.0


@rule.otherwise
def _certify_activation(module: nn.Module) -> CertificateTree | None:
    if not slopes.concerns(module):
        return None
    low, high = slope_interval(module)
    lipschitz = max(abs(low), abs(high))
    alpha = round_up((1 - Fraction(low)) / 2) if lipschitz <= 1 else None
    return CertificateTree(type(module).__name__, Certificate(lipschitz, alpha), f"slopes in [{low:g}, {high:g}]")
