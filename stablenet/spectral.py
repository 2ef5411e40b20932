"""Spectral norms of linear layers: a power-iteration lower bound and a certified upper bound at every image size.

Source: the sampled symbol with the Riesz / Ehlich-Zeller factor (docs/theorems.md, N1) [EhlichZeller1964];
Frobenius norms of repeatedly squared Gram matrices (N2), rigorous at every step and pruned between frequencies.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from stablenet import symbols

LinearFunction = Callable[[Tensor], Tensor]
UNIT_ROUNDOFF = 2.0**-53
_REMEMBERED: dict[bytes, float] = {}


class UnboundedError(TypeError):
    """Raised when no theorem bounds the spectral norm of a layer; the message says what is covered."""


UPPER: dict[type, Callable[[nn.Module], float]] = {}
LINEAR: dict[type, Callable[[nn.Module], tuple[LinearFunction, tuple[int, ...]]]] = {}


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
    cls = type(module)
    if cls not in UPPER:
        raise UnboundedError(
            f"no spectral norm bound for {cls.__module__}.{cls.__qualname__}: covered are "
            f"{', '.join(sorted(c.__name__ for c in UPPER))} (exact classes, without parametrizations)"
        )
    return UPPER[cls](module)


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
    cls = type(module)
    if cls not in LINEAR:
        raise UnboundedError(f"{cls.__module__}.{cls.__qualname__} is not a known linear layer")
    if not (tolerance > 0 and max_iterations > 0):
        raise ValueError(f"tolerance and max_iterations must be > 0, got {tolerance} and {max_iterations}")
    function, default_shape = LINEAR[cls](module)
    device = module.weight.device
    if start is None:
        generator = generator or torch.Generator(device).manual_seed(0)
        shape = (1, *(input_shape or default_shape))
        start = torch.randn(shape, generator=generator, dtype=torch.float64, device=device)
    estimate, _, _ = power_iteration(function, start.double(), tolerance=tolerance, max_iterations=max_iterations)
    if not math.isfinite(estimate):
        raise ValueError(f"the weights of {cls.__name__} hold NaN or infinity: no norm exists; restore a checkpoint")
    return estimate * (1 - 1e-12)


def power_iteration(
    function: LinearFunction,
    start: Tensor,
    *,
    adjoint: LinearFunction | None = None,
    tolerance: float,
    max_iterations: int,
    previous: float = 0.0,
) -> tuple[float, Tensor, int]:
    """Power iteration on A^T A: (the estimate |A v|, the unit vector v to warm-start from, iterations used).

    `previous` is an earlier estimate for the same start: one iteration is then enough when nothing moved.
    """
    vector = start / start.norm().clamp_min(torch.finfo(start.dtype).tiny)
    estimate, iteration = 0.0, 0
    for iteration in range(1, max_iterations + 1):  # noqa: B007
        image, back = _normal_step(function, adjoint, vector)
        estimate = float(image.norm())
        size = float(back.norm())
        if size == 0 or not math.isfinite(size):
            break
        vector = back / size
        if abs(estimate - previous) <= tolerance * estimate:
            break
        previous = estimate
    return estimate, vector, iteration


def _normal_step(function: LinearFunction, adjoint: LinearFunction | None, vector: Tensor) -> tuple[Tensor, Tensor]:
    if adjoint is not None:
        with torch.no_grad():
            image = function(vector)
            return image, adjoint(image)
    with torch.enable_grad():
        leaf = vector.detach().requires_grad_()
        image = function(leaf)
        (back,) = torch.autograd.grad(image, leaf, image.detach())
    return image.detach(), back.detach()


def matrix_upper_bound(matrix: Tensor) -> float:
    """A certified upper bound of the largest singular value of an (m, n) matrix, tight to rounding."""
    weight, magnitude = _normalized(matrix)
    if magnitude == 0:
        return 0.0
    gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    top = max(float(torch.linalg.eigvalsh(gram)[-1]), 0.0)
    # backward error of the product and of LAPACK's symmetric eigensolver, p(n) u |G| with a generous p
    margin = 1e-12 + 64 * (len(gram) ** 1.5 + max(weight.shape)) * UNIT_ROUNDOFF
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
        _REMEMBERED[key] = factor * _largest_singular_value(symbols.sampled(kernel, points))
    return _REMEMBERED[key]


def _normalized(weight: Tensor) -> tuple[Tensor, float]:
    """The weights in float64 divided by their largest magnitude (so that squares neither under- nor overflow)."""
    if weight.numel() == 0:
        raise ValueError(f"an empty weight has no spectral norm, got shape {tuple(weight.shape)}")
    weight = weight.detach().to(device="cpu", dtype=torch.float64)
    magnitude = float(weight.abs().max())
    if not math.isfinite(magnitude):
        raise ValueError("the weights hold NaN or infinity: no norm exists; restore a checkpoint")
    return (weight / magnitude if magnitude else weight), magnitude


def _largest_singular_value(chunks) -> float:
    """A certified upper bound of the largest singular value in batches of matrices, tight to 1e-3 (N2).

    With G the Gram matrix and m = 2^p: |G^m|_F^(1/m) is above lambda_max(G), (tr G^2m / tr G^m)^(1/m) below it.
    Matrices whose upper bound falls below the best lower bound of any are dropped.
    """
    upper, lower = 0.0, 0.0
    for symbol in chunks:
        gram = symbol @ symbol.mH if symbol.shape[1] <= symbol.shape[2] else symbol.mH @ symbol
        if gram.shape[1] == 1:
            upper = max(upper, float(gram.real.max()))
            lower = max(lower, upper)
            continue
        top, low = _largest_eigenvalue(gram, lower)
        upper, lower = max(upper, top), max(lower, low)
    size = min(symbol.shape[1:])
    # each singular value's square passed a product over the longer side and one squaring chain (N2)
    margin = 1e-12 + _rounding(size, UNIT_ROUNDOFF) + 8 * max(symbol.shape[1:]) * UNIT_ROUNDOFF
    return math.sqrt(upper) * (1 + margin)


def _rounding(size: int, unit: float) -> float:
    """A bound of the relative error that a chain of normalized squarings adds to the largest eigenvalue (N2)."""
    return 8 * size * (size + 4) * unit


def _largest_eigenvalue(gram: Tensor, lower: float, slack: float = 2e-3) -> tuple[float, float]:
    """Bounds (above, below) of the largest eigenvalue among positive semidefinite Hermitian matrices.

    A first pass in single precision, with its rounding error added, drops most of the matrices.
    """
    if len(gram) > 16 and _rounding(gram.shape[1], 2.0**-24) < 0.02:
        above, below = _squarings(gram.to(torch.complex64), lower, slack, rounds=5)
        lower = max(lower, below)
        gram = gram[above >= lower]
    above, lower = _squarings(gram, lower, slack, rounds=16)
    return (float(above.max()) if len(above) else lower), lower


def _squarings(gram: Tensor, lower: float, slack: float, *, rounds: int) -> tuple[Tensor, float]:
    """Upper bounds of each matrix's largest eigenvalue (0 where it is known to be below `lower`) and a lower bound of all."""
    inflation = 1 + _rounding(gram.shape[1], UNIT_ROUNDOFF if gram.dtype == torch.complex128 else 2.0**-24)
    bounds = torch.zeros(len(gram), dtype=torch.float64)
    norm = _frobenius(gram)
    alive = torch.nonzero(norm * inflation >= max(lower, 1e-300)).flatten()
    gram, norm = gram[alive], norm[alive]
    log_scale, power = torch.zeros_like(norm), 1.0
    for _ in range(rounds):
        if not len(alive):
            break
        gram = torch.view_as_complex(torch.view_as_real(gram) * norm.reciprocal().to(gram.real.dtype)[:, None, None, None])
        log_scale = log_scale + norm.log() / power
        trace = gram.diagonal(dim1=1, dim2=2).real.sum(1).double()
        lower = max(lower, float((log_scale - trace.log() / power).max().exp()) / inflation)
        above = log_scale.exp() * inflation
        bounds[alive] = above
        if float(above.max()) <= lower * (1 + slack):
            break
        keep = above >= lower
        bounds[alive[~keep]] = 0.0
        if not keep.all():
            alive, gram, log_scale = alive[keep], gram[keep], log_scale[keep]
        gram = gram @ gram
        norm, power = _frobenius(gram), power * 2
    return bounds, lower


def _frobenius(batch: Tensor) -> Tensor:
    return torch.view_as_real(batch).flatten(1).norm(dim=1).double()


def _reach(module: nn.Module) -> list[tuple[int, int]]:
    """Per axis (total padding, kernel reach dilation * (k - 1))."""
    reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    if module.padding == "same":
        return [(r, r) for r in reach]
    padding = [0] * len(reach) if module.padding == "valid" else list(module.padding)
    return [(2 * p, r) for p, r in zip(padding, reach, strict=True)]


def _convolution(module: nn.Module) -> float:
    circular = module.padding_mode == "circular"
    if module.padding_mode not in ("zeros", "circular"):
        raise UnboundedError(
            f"{type(module).__name__} has padding_mode={module.padding_mode!r}: no bound is proved for it; use 'zeros' or "
            "'circular'"
        )
    if circular and any(total > reach for total, reach in _reach(module)):
        raise UnboundedError(
            f"circular padding {module.padding} is wider than the reach of kernel_size={tuple(module.kernel_size)}, which "
            "repeats outputs; use padding='same'"
        )
    return convolution_upper_bound(
        module.weight, stride=module.stride, dilation=module.dilation, groups=module.groups, circular=circular
    )


def _transposed(module: nn.Module) -> float:
    # weight (in, out / groups, *kernel) is the kernel of the adjoint, a convolution from out to in channels
    return convolution_upper_bound(module.weight, stride=module.stride, dilation=module.dilation, groups=module.groups)


def _bias_free(module: nn.Module) -> tuple[LinearFunction, tuple[int, ...]]:
    """The layer as a linear function in float64 and the default shape of its input."""
    import copy

    frozen = copy.deepcopy(module).double().requires_grad_(False)
    if frozen.bias is not None:
        frozen.bias.zero_()
    if isinstance(module, nn.Linear):
        return frozen, (module.in_features,)
    return frozen, (module.in_channels, *[32] * len(module.kernel_size))


for _axes in (1, 2, 3):
    UPPER[getattr(nn, f"Conv{_axes}d")] = _convolution
    UPPER[getattr(nn, f"ConvTranspose{_axes}d")] = _transposed
UPPER[nn.Linear] = lambda module: matrix_upper_bound(module.weight)
for _cls in tuple(UPPER):
    LINEAR[_cls] = _bias_free
