"""A certified smoothness of f(x) = 1/2 |Ax - y|^2, that is a bound of |A|^2, by one rule per exact physics class.

Sources: docs/theorems.md (N1: the norm of a convolution; P4: diagonal operators, whose norm and least singular value are
max and min |mask|). deepinv's own `compute_sqnorm` is a power iteration, which is a lower bound: it is never used here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import deepinv
import torch
from deepinv.physics import LinearPhysics
from deepinv.physics import functional as operations
from torch import Tensor, nn

from pnp import nonnegative
from pnp.alterations import require_as_constructed
from pnp.bounds import Refused
from pnp.nonnegative import Nonnegative
from pnp.rules import Rules
from stablenet.spectral import convolution_upper_bound

REMEDY = "Pass smoothness=, an upper bound of |A|^2 (a power iteration gives a lower bound, which is not enough)."
_COVERED_PADDINGS = ("valid", "circular", "constant", "zeros")
_CONVOLUTIONS = (  # whether by Fourier transforms, A and A_adjoint of Blur by the number of axes
    (
        False,
        {2: operations.conv2d, 3: operations.conv3d},
        {2: operations.conv_transpose2d, 3: operations.conv_transpose3d},
    ),
    (
        True,
        {2: operations.conv2d_fft, 3: operations.conv3d_fft},
        {2: operations.conv_transpose2d_fft, 3: operations.conv_transpose3d_fft},
    ),
)


@dataclass(frozen=True)
class Smoothness:
    """What is proved of the spectrum of A^T A, and whether the physics has a formula for the proximal operator.

    Parameters
    ----------
    bound : >= |A|^2, at every size of image that the physics takes.
    reason : why it holds.
    exact_prox : whether `prox_l2` is a formula and not an iteration.
    strong_convexity : mu <= every eigenvalue of A^T A; 0 where nothing better is known.
    """

    bound: float
    reason: str
    exact_prox: bool = False
    strong_convexity: float = 0.0


rule: Rules[Smoothness] = Rules("the norm", Refused, REMEDY)


def certified_smoothness(physics: LinearPhysics, example: Tensor | None = None) -> Smoothness:
    """An upper bound of |A|^2 computed from the physics, with its reason.

    Parameters
    ----------
    example : an image (batch, channels, height, width) of the size that A takes, for the operators with nonnegative
        entries whose norm is known at a given size only (`pnp.nonnegative`).

    Raises
    ------
    Refused : no rule covers the exact class (or its padding), or a method or part of the instance was replaced.
    ValueError : a mask or filter that is missing, not real floating point, or has NaN or infinite values.
    """
    require_as_constructed(physics, REMEDY)
    fact = _nonnegative(physics)
    if fact is None:
        return rule.of(physics)
    if example is None:
        raise Refused(
            f"the norm of {type(physics).__name__} is unknown without an image of the size it takes ({fact.reason}): give "
            f"one, or pose the problem. {REMEDY}"
        )
    bound = nonnegative.upper_bound(physics, example, terms=fact.terms)
    return Smoothness(bound, f"max (A^T A v)/v at an image v > 0, {fact.reason}")


def smoothness_at_every_size(physics: LinearPhysics) -> Smoothness | None:
    """As `certified_smoothness`, or None where the norm depends on a size of image that the physics does not know."""
    require_as_constructed(physics, REMEDY)
    return rule.of(physics) if _nonnegative(physics) is None else None


def _nonnegative(physics: LinearPhysics) -> Nonnegative | None:
    return nonnegative.rule.of(physics) if nonnegative.rule.covers(physics) else None


@rule(deepinv.physics.Denoising, deepinv.physics.Inpainting, deepinv.physics.Demosaicing, deepinv.physics.MRI)
def _diagonal(physics: deepinv.physics.DecomposablePhysics) -> Smoothness:
    """|A| = max |mask| in an orthonormal basis, the canonical one or the Fourier basis."""
    mask = checked(physics, "mask").abs().double()
    fourier = isinstance(physics, deepinv.physics.MRI)
    return _spectrum(float(mask.min()), float(mask.max()), rounding(physics.mask) if fourier else 0.0)


@rule(deepinv.physics.BlurFFT)
def _blur_fft(physics: deepinv.physics.BlurFFT) -> Smoothness:
    """|A| = max |mask| over the frequencies; real images make the other half of the spectrum the conjugate of this one.

    The mask holds the modulus of the transform of the filter twice, for the real and the imaginary part, and `angle` its
    phase: numbers that were changed afterwards belong to no filter.
    """
    name, kernel, mask = type(physics).__name__, checked(physics, "filter"), checked(physics, "mask")
    height, width = physics.img_size[-2:]
    if kernel.shape[-2] > height or kernel.shape[-1] > width:
        raise Refused(
            f"{name} with a filter of {tuple(kernel.shape[-2:])} on images of {(height, width)} is not covered: the filter "
            "is larger than the image and would be cropped. Crop it yourself, or use a larger image."
        )
    made = physics.get_filter_parameters(physics.img_size, kernel, kernel.device)
    phase = physics.angle.detach().to(torch.complex128).unsqueeze(-1)
    here, there = mask.double() * phase, made["mask"].double() * made["angle"].to(torch.complex128).unsqueeze(-1)
    if here.shape != there.shape or not bool((here - there).abs().max() <= 1e-5 * there.abs().max()):
        raise Refused(f"the norm of {name} is unknown: its mask or angle is not that of its filter. {REMEDY}")
    gain = here.abs()
    return _spectrum(float(gain.min()), float(gain.max()), rounding(mask))


def _spectrum(smallest: float, largest: float, slack: float) -> Smoothness:
    """Both ends of a diagonal physics, outwards by a relative slack of the upper end for the rounding of the transform."""
    exact = largest**2 * (1 + slack)
    bound = exact if exact in (0.0, 1.0) else math.nextafter(exact, math.inf)
    least = smallest**2 - slack * bound
    least = least if least in (0.0, 1.0) else max(0.0, math.nextafter(least, 0.0))
    return Smoothness(bound, "max |mask|^2, exact for a diagonal physics", exact_prox=True, strong_convexity=max(0.0, least))


@rule(deepinv.physics.Blur)
def _blur(physics: deepinv.physics.Blur) -> Smoothness:
    kernel = checked(physics, "filter")
    fourier = _uses_fourier(physics)
    _check_padding(physics)
    if fourier and physics.padding == "circular":  # a filter larger than the image is cropped: |h|_1 bounds every part
        return Smoothness(_squared(_young(kernel)), "|h|_1^2, for 'circular' padding by Fourier transforms")
    return Smoothness(_squared(kernel_norm_bound(kernel)), f"|h|^2, bounded for '{physics.padding}' padding")


def _uses_fourier(physics: deepinv.physics.Blur) -> bool:
    """Which of the two pairs of convolutions the constructor chose; anything else was put there by hand."""
    for fourier, forward, transpose in _CONVOLUTIONS:
        if (physics.conv, physics.conv_transpose) == (forward, transpose):
            return fourier
    raise Refused(f"the norm of Blur is unknown: its conv or conv_transpose was replaced. {REMEDY}")


@rule(deepinv.physics.Downsampling)
def _downsampling(physics: deepinv.physics.Downsampling) -> Smoothness:
    """A strided convolution where that is exact; on a torus, whose size s may not divide, |S H| <= |S| |H| = |H|."""
    if physics.filter is None:
        return Smoothness(1.0, "keeping one sample of several has norm 1")
    kernel = checked(physics, "filter")
    _check_padding(physics)
    stride = 1 if physics.padding == "circular" else physics.factor
    bound = _squared(kernel_norm_bound(kernel, stride=stride))
    reason = "|h|^2 of the filter" + (" before subsampling" if stride == 1 else ", subsampled")
    return Smoothness(bound, reason, exact_prox=physics.padding == "circular")


@nonnegative.rule(deepinv.physics.Blur, deepinv.physics.Downsampling)
def _reflecting(physics: deepinv.physics.Blur | deepinv.physics.Downsampling) -> Nonnegative | None:
    """Reflection and replication add entries of a nonnegative filter, by sums of products only (no Fourier transform)."""
    direct = isinstance(physics, deepinv.physics.Downsampling) or not _uses_fourier(physics)
    if physics.filter is None or physics.padding not in ("reflect", "replicate") or not direct:
        return None
    kernel = checked(physics, "filter")
    if bool((kernel < 0).any()):
        return None
    return Nonnegative(f"as the filter is nonnegative, padding='{physics.padding}'", 2 * 9 * kernel[0, 0].numel())


def _check_padding(physics: deepinv.physics.Blur | deepinv.physics.Downsampling) -> None:
    if physics.padding not in _COVERED_PADDINGS:
        raise Refused(
            f"the norm of {type(physics).__name__} with padding='{physics.padding}' is unknown: only 'valid', "
            "'circular' and 'constant' are covered, 'reflect' and 'replicate' for a nonnegative filter without use_fft "
            f"on images of known size. {REMEDY}"
        )


def checked(physics: nn.Module, name: str) -> Tensor:
    """A mask or filter of a physics as the numbers it holds, or an error that says what is wrong with it."""
    value, owner = getattr(physics, name), type(physics).__name__
    if value is None:
        raise ValueError(f"{owner} has no {name} yet: give it one when it is made")
    if type(value) not in (Tensor, nn.Parameter, nn.Buffer):
        raise Refused(f"the norm of {owner} is unknown: its {name} is a {type(value).__name__}, not a plain tensor. {REMEDY}")
    if not value.dtype.is_floating_point:
        raise ValueError(f"the {name} of {owner} is {value.dtype}: make it real floating point, {name}.float()")
    if value.numel() == 0 or not bool(torch.isfinite(value).all()):
        raise ValueError(f"the {name} of {owner} is empty or has NaN or infinite values")
    return value.detach()


def rounding(values: Tensor) -> float:
    """A few units in the last place: what an orthonormal Fourier transform of that precision may add, relatively."""
    return 8 * torch.finfo(values.dtype).eps


def kernel_norm_bound(kernel: Tensor, *, stride: int = 1) -> float:
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
    young = _young(kernel)
    single = kernel.detach().double().cpu().flatten(0, 1).unsqueeze(1)
    if stride == 1 and not bool((single < 0).any()):
        return young
    return min(young, convolution_upper_bound(single, stride=stride, groups=len(single)))


def _young(kernel: Tensor) -> float:
    """The largest sum |h| of the kernels, rounded up."""
    sums = kernel.detach().double().abs().flatten(2).sum(2)
    return float(sums.max()) * (1 + torch.finfo(torch.float64).eps * kernel[0, 0].numel())


def _squared(norm: float) -> float:
    return math.nextafter(norm**2, math.inf)
