"""A certified smoothness of f(x) = 1/2 |Ax - y|^2, that is a bound of |A|^2, by one rule per exact physics class.

Sources: docs/theorems.md (N1: the norm of a convolution); a diagonal operator in an orthonormal basis has norm
max |mask|. deepinv's own `compute_sqnorm` is a power iteration, which is a lower bound: it is never used here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import deepinv
import torch
from deepinv.physics import LinearPhysics

from pnp.guarantees import Refused
from stablenet.spectral import convolution_upper_bound

_COVERED_PADDINGS = ("valid", "circular", "constant", "zeros")
_OPERATOR_METHODS = {"A", "A_adjoint", "A_adjoint_A", "A_A_adjoint", "U", "U_adjoint", "V", "V_adjoint", "prox_l2"}


@dataclass(frozen=True)
class Smoothness:
    """bound >= |A|^2, why it holds, and whether the physics has an exact proximal operator."""

    bound: float
    reason: str
    exact_prox: bool = False


Rule = Callable[[LinearPhysics], Smoothness]
_RULES: dict[type, Rule] = {}


def rule(*classes: type) -> Callable[[Rule], Rule]:
    """Register the smoothness rule of exact physics classes; a subclass does not inherit it."""

    def register(function: Rule) -> Rule:
        for cls in classes:
            _RULES[cls] = function
        return function

    return register


def certified_smoothness(physics: LinearPhysics) -> Smoothness:
    """An upper bound of |A|^2 computed from the physics, with its reason.

    Raises
    ------
    Refused : no rule covers the exact class (or its padding), or a method of the instance was replaced.
    """
    name = type(physics).__name__
    replaced = sorted(_OPERATOR_METHODS & vars(physics).keys())
    if replaced:
        raise Refused(f"the norm of {name} is unknown: its method {replaced[0]} was replaced. {_remedy()}")
    if type(physics) not in _RULES:
        raise Refused(f"the norm of the physics {name} is unknown. {_remedy()}")
    return _RULES[type(physics)](physics)


def _remedy() -> str:
    return "Pass smoothness=, an upper bound of |A|^2 (a power iteration gives a lower bound, which is not enough)."


@rule(
    deepinv.physics.Denoising,
    deepinv.physics.Inpainting,
    deepinv.physics.Demosaicing,
    deepinv.physics.BlurFFT,
    deepinv.physics.MRI,
)
def _decomposable(physics: deepinv.physics.DecomposablePhysics) -> Smoothness:
    """|A| = max |mask| in an orthonormal basis; a few units in the last place are added for the rounding of the FFT."""
    mask = physics.mask
    if mask is None:
        raise ValueError(f"{type(physics).__name__} has no mask or filter yet: give it one when it is made")
    phase = getattr(physics, "angle", None)
    values = mask.detach().abs().double() if phase is None else _modulus(mask, phase)
    largest = float(values.max())
    if not math.isfinite(largest):
        raise ValueError(f"the mask of {type(physics).__name__} has NaN or infinite values")
    inexact = phase is not None or isinstance(physics, deepinv.physics.MRI)
    slack = 1 + (8 * torch.finfo(mask.abs().dtype).eps if inexact else 0)
    exact = largest**2 * slack
    bound = exact if exact in (0.0, 1.0) else math.nextafter(exact, math.inf)
    return Smoothness(bound, "max |mask|^2, exact for a diagonal physics", exact_prox=True)


def _modulus(mask: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
    """|mask| |phase| of BlurFFT, whose mask holds the modulus twice and whose phase has modulus 1 up to rounding."""
    return mask.detach().abs().double() * phase.detach().to(torch.complex128).abs().unsqueeze(-1)


@rule(deepinv.physics.Blur)
def _blur(physics: deepinv.physics.Blur) -> Smoothness:
    _check_padding(physics)
    if physics.filter is None:
        raise ValueError("Blur has no filter yet: give it one when it is made")
    return Smoothness(_squared(kernel_norm_bound(physics.filter)), f"|h|^2, bounded for '{physics.padding}' padding")


@rule(deepinv.physics.Downsampling)
def _downsampling(physics: deepinv.physics.Downsampling) -> Smoothness:
    """A strided convolution where that is exact; on a torus, whose size s may not divide, |S H| <= |S| |H| = |H|."""
    if physics.filter is None:
        return Smoothness(1.0, "keeping one sample of several has norm 1")
    _check_padding(physics)
    stride = 1 if physics.padding == "circular" else physics.factor
    bound = _squared(kernel_norm_bound(physics.filter, stride=stride))
    return Smoothness(bound, "|h|^2 of the filter" + (" before subsampling" if stride == 1 else ", subsampled"))


def _check_padding(physics: deepinv.physics.Blur | deepinv.physics.Downsampling) -> None:
    if physics.padding not in _COVERED_PADDINGS:
        raise Refused(
            f"the norm of {type(physics).__name__} with padding='{physics.padding}' is unknown: only 'valid', "
            f"'circular' and 'constant' are covered. {_remedy()}"
        )


def kernel_norm_bound(kernel: torch.Tensor, *, stride: int = 1) -> float:
    """An upper bound of |x -> h * x| for valid, zero or circular padding, at every image size.

    The smaller of sum |h| (Young), which is the exact norm of a nonnegative kernel on a torus, and the bound of
    `stablenet.spectral.convolution_upper_bound` (docs/theorems.md, N1).

    Parameters
    ----------
    kernel : (batch, channels, height, width) or with a depth before the height, real; each channel of each image is
        filtered by itself, so that the largest of their norms is returned.
    stride : of the samples that are kept, for valid or zero padding; 1 bounds every stride.

    Raises
    ------
    ValueError : complex, NaN or infinite entries.
    """
    if kernel.is_complex() or not bool(torch.isfinite(kernel).all()):
        raise ValueError("a filter must be real, without NaN or infinite values")
    single = kernel.detach().double().cpu().flatten(0, 1).unsqueeze(1)
    axes = tuple(range(1, single.ndim))
    young = float(single.abs().sum(axes).max()) * (1 + torch.finfo(torch.float64).eps * single[0].numel())
    if stride == 1 and not bool((single < 0).any()):
        return young
    return min(young, convolution_upper_bound(single, stride=stride, groups=len(single)))


def _squared(norm: float) -> float:
    return math.nextafter(norm**2, math.inf)
