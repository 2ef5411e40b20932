"""Spectral norms of linear layers: a certified upper bound at every image size, by exact class, and a lower bound.

Source: the sampled symbol with the Riesz / Ehlich-Zeller factor (docs/theorems.md, N1) [EhlichZeller1964];
Cholesky factorizations of Gram matrices at every frequency (N2).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stablenet.certificate import Certificate, CertificateTree, NotCertified, rule
from stablenet.rounding import eigensolver_margin
from stablenet.rules import Rules, real_weight
from stablenet.spectral import symbols
from stablenet.spectral.gram import largest_singular_value
from stablenet.spectral.power import LinearFunction, power_iteration

_REMEMBERED: dict[bytes, float] = {}


class UnboundedError(NotCertified):
    """Raised when no theorem bounds the spectral norm of a layer; the message says what is covered."""


bound: Rules[float] = Rules(
    "spectral norm bound",
    UnboundedError,
    "covered are {known} (exact classes, without parametrizations); @stablenet.spectral.bound({name}) registers another",
)
linear_function: Rules[tuple[LinearFunction, tuple[int, ...]]] = Rules(
    "known linear function", UnboundedError, "known are {known}"
)
"""The map of a layer without its bias, in float64, and the default shape of its input: what `lower_bound` iterates."""


def upper_bound(module: nn.Module) -> float:
    """A certified upper bound of the spectral norm (bias ignored), valid at every image size.

    Covers torch.nn.Linear, Conv1d-3d and ConvTranspose1d-3d (zero padding of any width, circular padding of at
    most the kernel's reach, any stride, groups, dilation) and the maps of `stablenet.linear`, by exact class.
    Computed in float64 from the present weights and rounded outward.

    Raises
    ------
    UnboundedError : the class has no rule, or the padding is not covered.
    ValueError : the weights hold NaN or infinity.
    """
    value = float(bound.of(module))
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"the spectral norm bound of {type(module).__name__} is {value}: it must be finite and >= 0")
    return value


@rule.otherwise
def _certify_linear(module: nn.Module) -> CertificateTree | None:
    if not bound.concerns(module):
        return None
    value = upper_bound(module)
    return CertificateTree(type(module).__name__, Certificate(value), f"spectral norm <= {value:.6g}")


def lower_bound(
    module: nn.Module,
    *,
    input_shape: Sequence[int] | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> float:
    """A lower bound of the spectral norm by power iteration in float64: it certifies nothing.

    Parameters
    ----------
    input_shape : shape of one input, batch excluded; by default 32 pixels an axis. A zero-padded convolution's norm
        grows with it.
    tolerance : stops when the estimate changes by less than this, relatively.
    start : a warm start of shape (1, *input_shape); random from `generator` (seed 0 when None) otherwise.

    Raises
    ------
    UnboundedError : the class is not a known linear layer.
    ValueError : the weights hold NaN or infinity, or tolerance or max_iterations is not positive.
    """
    function, default_shape = linear_function.of(module)
    if not (tolerance > 0 and max_iterations > 0):
        raise ValueError(f"tolerance and max_iterations must be > 0, got {tolerance} and {max_iterations}")
    device = next(module.parameters()).device
    if start is None:
        generator = generator or torch.Generator(device).manual_seed(0)
        shape = (1, *(input_shape or default_shape))
        start = torch.randn(shape, generator=generator, dtype=torch.float64, device=device)
    estimate, _, _ = power_iteration(function, start.double(), tolerance=tolerance, max_iterations=max_iterations)
    if not math.isfinite(estimate):
        raise ValueError(f"the weights of {type(module).__name__} hold NaN or infinity: no norm exists; restore a checkpoint")
    return estimate * (1 - 1e-12)


def matrix_upper_bound(matrix: Tensor) -> float:
    """A certified upper bound of the largest singular value of an (m, n) matrix, tight to rounding."""
    weight, magnitude = _normalized(matrix)
    if magnitude == 0:
        return 0.0
    gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    top = max(float(torch.linalg.eigvalsh(gram)[-1]), 0.0)
    margin = eigensolver_margin(len(gram), max(weight.shape))
    return magnitude * math.sqrt(top + margin * float(gram.trace())) * (1 + 1e-12)


def convolution_upper_bound(
    weight: Tensor,
    *,
    stride: Sequence[int] | int = 1,
    dilation: Sequence[int] | int = 1,
    groups: int = 1,
    circular: bool = False,
    excess: float | None = None,
) -> float:
    """A certified upper bound of a convolution with kernel `weight`, at every image size (docs/theorems.md, N1).

    |conv| <= max over an N-point grid of sigma_1(W(theta)) * product over the axes of 1/cos(pi (k - 1)/(2 N)).

    Parameters
    ----------
    weight : (out, in / groups, *kernel), one to three spatial axes, not dilated.
    dilation : it matters only with a stride: their common divisor g splits the input into sublattices, on each of which
        the stride is stride / g.
    stride : applied to the polyphase kernel; with circular padding it is ignored (a bound all the same), as the
        polyphase form fails where the stride does not divide the image.
    excess : the grid is chosen so that the factor is at most 1 + excess (default 0.005, 0.02 for three axes).

    Raises
    ------
    ValueError : NaN or infinite weights, an empty kernel, or excess out of (0, 1).
    """
    kernel, magnitude = _normalized(weight)
    axes = kernel.ndim - 2
    if axes < 1:
        raise ValueError(f"a convolution kernel has at least 3 axes, got shape {tuple(weight.shape)}")
    excess = (0.02 if axes >= 3 else 0.005) if excess is None else excess
    if not 0 < excess < 1:
        raise ValueError(f"excess must lie in (0, 1), got {excess}")
    if magnitude == 0:
        return 0.0
    strides = [stride] * axes if isinstance(stride, int) else list(stride)
    dilations = [dilation] * axes if isinstance(dilation, int) else list(dilation)
    strides = [1 if circular else s // math.gcd(s, d) for s, d in zip(strides, dilations, strict=True)]
    largest = 0.0
    for part in kernel.chunk(groups):
        largest = max(largest, _kernel_bound(symbols.polyphase(part, strides), excess))
    return magnitude * largest * (1 + 1e-12)


def _kernel_bound(kernel: Tensor, excess: float) -> float:
    """The bound for stride 1, remembered by the content of the kernel: loading a network asks for each three times."""
    key = hashlib.sha256(f"{tuple(kernel.shape)} {excess!r}".encode() + kernel.contiguous().numpy().tobytes()).digest()
    if key not in _REMEMBERED:
        sizes = kernel.shape[2:]
        points = [symbols.grid_size(k, excess / len(sizes)) for k in sizes]
        factor = math.prod(1 / math.cos(math.pi * (k - 1) / (2 * n)) for k, n in zip(sizes, points, strict=True))
        if len(_REMEMBERED) >= 1000:
            _REMEMBERED.clear()
        _REMEMBERED[key] = factor * largest_singular_value(kernel, points)
    return _REMEMBERED[key]


def _normalized(weight: Tensor) -> tuple[Tensor, float]:
    """The weights in float64 divided by their largest magnitude (so that squares neither under- nor overflow)."""
    real_weight(weight)
    if weight.numel() == 0:
        raise ValueError(f"an empty weight has no spectral norm, got shape {tuple(weight.shape)}")
    weight = weight.detach().to(device="cpu", dtype=torch.float64)
    magnitude = float(weight.abs().max())
    if not math.isfinite(magnitude):
        raise ValueError("the weights hold NaN or infinity: no norm exists; restore a checkpoint")
    return (weight / magnitude if magnitude else weight), magnitude
