"""Nondecreasing, slope-restricted nonlinearities: each carries its slope interval [low, high] as data.

Source: the blocks need sigma nondecreasing with slope in [0, L] (docs/theorems.md, T1); an elementwise map with
slopes in [a, 1] is (1 - a)/2-averaged (C5). Learned spline nonlinearities in convex regularizers: [Goujon2023].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet.certificate import Certificate, CertificateTree, NotCertified, rule
from stablenet.tableaus import round_up

Slopes = tuple[float, float]
SLOPES: dict[type, Callable[[nn.Module], Slopes]] = {}


def slope_interval(activation: nn.Module) -> Slopes:
    """The interval (low, high) that holds every slope of an elementwise activation, by exact class.

    Raises
    ------
    NotCertified : the class is unknown or its slopes are not bounded as set.
    """
    cls = type(activation)
    if cls not in SLOPES:
        known = ", ".join(sorted(c.__name__ for c in SLOPES))
        raise NotCertified(f"no slope interval for the activation {cls.__name__}: known are {known}")
    return SLOPES[cls](activation)


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


def perspective(activation: nn.Module, u: Tensor, scale: Tensor | None) -> Tensor:
    """s sigma(u / s): the same slopes, another scale (docs/theorems.md, T5); s > 0 broadcasts against u."""
    if scale is None:
        return activation(u)
    if isinstance(activation, LinearSpline):
        return activation(u, scale)
    return scale * activation(u / scale)


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

    def forward(self, u: Tensor, scale: Tensor | None = None) -> Tensor:
        _expect_channels(self, u, len(self.logits))
        slopes = self.slopes.repeat_interleave(u.shape[1] // len(self.logits), 0)
        scale = torch.ones((), device=u.device) if scale is None else scale
        if self.fused:
            if u.ndim == 4 and scale.ndim in (0, 4):
                return _FusedSpline.apply(u, scale.expand(u.shape[0], u.shape[1], 1, 1), slopes)
            return _compiled(odd_spline)(u, scale, slopes)
        if torch.is_grad_enabled():
            return odd_spline(u, scale, slopes)
        # measured on a CPU: sweeps over whole tensors beat two look-ups an element up to about twelve segments
        return (_swept_spline if slopes.shape[1] <= 8 else _gathered_spline)(u, scale, slopes)


def _expect_channels(module: nn.Module, u: Tensor, channels: int) -> None:
    if u.ndim < 2 or u.shape[1] % channels:
        name = type(module).__name__
        raise ValueError(f"{name} expects axis 1 to hold {channels} channels (or a multiple), got shape {tuple(u.shape)}")


def odd_spline(u: Tensor, scale: Tensor, slopes: Tensor) -> Tensor:
    """scale sign(u) sum_j p_j clamp(|u|/scale - j, 0, 1), the formula as it stands: what the compiler fuses."""
    v = _wide(u) / scale
    magnitude = v.abs()
    value = torch.zeros_like(v)
    for j, p in enumerate(slopes.reshape(*slopes.shape, *[1] * (u.ndim - 2)).unbind(1)):
        value = value + p * (magnitude - j).clamp(0, 1)
    return (value * scale * v.sign()).to(u.dtype)


def _swept_spline(u: Tensor, scale: Tensor, slopes: Tensor) -> Tensor:
    """The same value as scale sum_j (p_j - p_(j+1)) clamp(u/scale, -j-1, j+1): two sweeps a segment, no compiler needed."""
    v = _wide(u) * scale.reciprocal()
    bends = slopes.to(v.dtype) - functional.pad(slopes.to(v.dtype)[:, 1:], (0, 1))
    part, value = torch.empty_like(v), torch.zeros_like(v)
    for j, bend in enumerate(bends.reshape(*bends.shape, *[1] * (u.ndim - 2)).unbind(1), start=1):
        value.addcmul_(torch.clamp(v, -j, j, out=part), bend)
    return value.mul_(scale).to(u.dtype)


def _gathered_spline(u: Tensor, scale: Tensor, slopes: Tensor) -> Tensor:
    """The same value by one table look-up an element: the cost does not grow with the number of knots."""
    channels, segments = slopes.shape
    v = u / scale
    magnitude = v.abs().clamp_(max=segments)
    index = magnitude.long().clamp_(max=segments - 1)
    magnitude -= index
    knots = torch.cat([slopes.new_zeros(channels, 1), slopes.cumsum(1)[:, :-1]], 1).to(v.dtype)
    offset = torch.arange(channels, device=u.device).mul_(segments).reshape(-1, *[1] * (u.ndim - 2))
    index += offset
    magnitude *= slopes.to(v.dtype).flatten().take(index)
    magnitude += knots.flatten().take(index)
    return (magnitude.mul_(scale).copysign_(v)).to(u.dtype)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _spline_rows_backward(grad: Tensor, u: Tensor, scale: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to u, to the scale and to the slopes (per image, before the factor `scale`), in one pass over the rows.

    u (batch, pixels, channels), scale (batch, channels), slopes (channels, segments).
    """
    grad = _wide(grad)
    v = _wide(u) * scale.reciprocal()[:, None]
    magnitude = v.abs()
    outward = torch.copysign(grad, grad * v)
    slope, value, parts = torch.zeros_like(v), torch.zeros_like(v), []
    for j in range(slopes.shape[1]):
        part = (magnitude - j).clamp(0, 1)
        slope = torch.where((magnitude > j) & (magnitude < j + 1), slopes[:, j], slope)
        value = value + slopes[:, j] * part
        parts.append((outward * part).sum(1))
    return (grad * slope).to(u.dtype), (outward * (value - slope * magnitude)).sum(1), torch.stack(parts, -1)


class _FusedSpline(torch.autograd.Function):
    """The spline on images as one compiled kernel a direction, its gradient by hand: faster than the compiled formula's own.

    Nothing but u is kept for the backward pass; channels_last images are read as rows without a copy.
    """

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, u: Tensor, scale: Tensor, slopes: Tensor) -> Tensor:
        batch, channels, height, width = u.shape
        rows = u.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        context.save_for_backward(rows, _wide(scale.reshape(batch, channels)), slopes)
        return _compiled(odd_spline)(u, scale, slopes)

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, scale, slopes = context.saved_tensors
        batch, channels, height, width = grad.shape
        grad = grad.permute(0, 2, 3, 1).reshape(rows.shape)
        to_u, to_scale, to_slopes = _compiled(_spline_rows_backward)(grad, rows, scale, slopes)
        to_slopes = (to_slopes * scale[..., None]).sum(0)
        to_u = to_u.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return to_u, to_scale.view(batch, channels, 1, 1), to_slopes


@cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(function, dynamic=False)


def fuse(model: nn.Module, enabled: bool = True) -> None:
    """Let the splines of a model run as one compiled kernel (needs a C++ compiler on CPU, triton on GPU)."""
    for module in model.modules():
        if isinstance(module, LinearSpline):
            module.fused = enabled


def _leaky(module: nn.LeakyReLU) -> Slopes:
    return min(module.negative_slope, 1.0), max(module.negative_slope, 1.0)


def _softplus(module: nn.Softplus) -> Slopes:
    if module.threshold < 20 or module.beta <= 0:
        raise NotCertified(
            f"Softplus(beta={module.beta}, threshold={module.threshold}) jumps at its threshold: keep threshold >= 20 and "
            "beta > 0"
        )
    return 0.0, 1.0


def _elu(module: nn.ELU) -> Slopes:
    if module.alpha < 0:
        return min(module.alpha, 0.0), 1.0
    return 0.0, max(1.0, module.alpha)


SLOPES.update(
    {
        nn.ReLU: lambda module: (0.0, 1.0),
        nn.LeakyReLU: _leaky,
        nn.ELU: _elu,
        nn.Softplus: _softplus,
        nn.Tanh: lambda module: (0.0, 1.0),
        nn.Sigmoid: lambda module: (0.0, 0.25),
        nn.Hardtanh: lambda module: (0.0, 1.0),
        Clamp: lambda module: (0.0, 1.0),
        LinearSpline: lambda module: (0.0, 1.0),
    }
)


@rule(*SLOPES)
def _certify_activation(module: nn.Module) -> CertificateTree:
    low, high = slope_interval(module)
    lipschitz = max(abs(low), abs(high))
    alpha = round_up((1 - Fraction(low)) / 2) if lipschitz <= 1 else None
    return CertificateTree(type(module).__name__, Certificate(lipschitz, alpha), f"slopes in [{low:g}, {high:g}]")
