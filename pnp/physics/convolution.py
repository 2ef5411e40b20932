"""Convolutions: blurs and downsampling, at every size of image, and better on a torus of known size.

Sources: docs/theorems.md, F2 (the sampled symbol at every size), F3 (the torus, where the discrete Fourier transform
diagonalizes A^T A exactly), F4 (nonnegative filters with reflection or replication at the border).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from deepinv.physics import Blur, Downsampling
from deepinv.physics import functional as operations
from torch import Tensor

from pnp.bounds import Refused
from pnp.physics.alterations import REMEDY, require_as_constructed
from pnp.physics.nonnegative import nonnegative_bound
from pnp.physics.smoothness import Smoothness, at_size, checked, rule
from stablenet.spectral import convolution_upper_bound

_AT_EVERY_SIZE = ("valid", "circular", "constant", "zeros")
_CONVOLUTIONS = (  # whether by Fourier transforms, then A and A_adjoint of Blur by the number of axes
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


@rule(Blur)
def _blur(physics: Blur) -> Smoothness:
    require_as_constructed(physics)
    kernel, fourier = checked(physics, "filter"), _uses_fourier(physics)
    _check_padding(physics)
    if fourier and physics.padding == "circular":  # a filter larger than the image is cropped: |h|_1 bounds every part
        return Smoothness(_squared(_young(kernel)), "|h|_1^2, for 'circular' padding at every size")
    return Smoothness(_squared(kernel_norm_bound(kernel)), f"|h|^2, bounded for '{physics.padding}' padding")


@rule(Downsampling)
def _downsampling(physics: Downsampling) -> Smoothness:
    """A strided convolution where that is exact; on a torus, whose size s may not divide, |S H| <= |S| |H| = |H|."""
    require_as_constructed(physics)
    if physics.filter is None:
        return Smoothness(1.0, "keeping one sample of several has norm 1")
    kernel = checked(physics, "filter")
    _check_padding(physics)
    stride = 1 if physics.padding == "circular" else physics.factor
    reason = "|h|^2 of the filter" + (" before subsampling" if stride == 1 else ", subsampled")
    exact_prox = physics.padding == "circular"
    return Smoothness(_squared(kernel_norm_bound(kernel, stride=stride)), reason, exact_prox=exact_prox)


@at_size(Blur, Downsampling)
def _at_size(physics: Blur | Downsampling) -> Callable[[Tensor], Smoothness] | None:
    require_as_constructed(physics)
    if physics.filter is None:
        return None
    kernel = checked(physics, "filter")
    fourier = isinstance(physics, Blur) and _uses_fourier(physics)
    factor = physics.factor if isinstance(physics, Downsampling) else 1
    if physics.padding == "circular" and kernel.ndim == 4:
        return lambda example: _on_torus(physics, kernel, example, factor, cropped=fourier)
    if physics.padding in ("reflect", "replicate") and not fourier and not bool((kernel < 0).any()):
        terms = 2 * 9 * kernel[0, 0].numel()  # an entry of the image stands for at most 9 of the padded one
        reason = f"as the filter is nonnegative, padding='{physics.padding}'"
        return lambda example: nonnegative_bound(physics, example, reason, terms=terms)
    return None


def _on_torus(physics: Blur | Downsampling, kernel: Tensor, example: Tensor, factor: int, *, cropped: bool) -> Smoothness:
    """The eigenvalues of A A^T are |h^|^2, averaged over the frequencies that subsampling by a divisor makes one."""
    height, width = example.shape[-2:]
    if cropped and (kernel.shape[-2] > height or kernel.shape[-1] > width):
        raise Refused(
            f"Blur with use_fft=True and a filter of {tuple(kernel.shape[-2:])} on images of {(height, width)} is not "
            "covered: the filter is larger than the image and is cropped. Crop it yourself, or use larger images."
        )
    if height % factor or width % factor:
        return rule.of(physics)
    powers = torus_gains(kernel, height, width) ** 2
    powers = powers.unflatten(-1, (factor, -1)).mean(-2).unflatten(-2, (factor, -1)).mean(-3)
    error = 64 * torch.finfo(torch.float64).eps * _young(kernel) ** 2
    least = max(0.0, float(powers.min()) - error) if factor == 1 else 0.0
    return Smoothness(
        float(powers.max()) + error,
        "max |DFT of h|^2, exact on a torus" + (", averaged by subsampling" if factor > 1 else ""),
        exact_prox=factor > 1,
        strong_convexity=least,
        convexity_reason="min |DFT of h|^2, exact on a torus" if factor == 1 else "pixels are dropped",
    )


def torus_gains(kernel: Tensor, height: int, width: int) -> Tensor:
    """|DFT| of a kernel (batch, channels, rows, columns) wound around a torus, in float64; where it starts plays no part."""
    rows, columns = (torch.arange(n, device=kernel.device) for n in kernel.shape[-2:])
    wound = torch.zeros(*kernel.shape[:-1], width, dtype=torch.float64, device=kernel.device)
    wound.index_add_(-1, columns % width, kernel.double())
    full = torch.zeros(*kernel.shape[:-2], height, width, dtype=torch.float64, device=kernel.device)
    return torch.fft.fft2(full.index_add_(-2, rows % height, wound)).abs()


def _uses_fourier(physics: Blur) -> bool:
    """Which of the two pairs of convolutions the constructor chose; anything else was put there by hand."""
    for fourier, forward, transpose in _CONVOLUTIONS:
        if (physics.conv, physics.conv_transpose) == (forward, transpose):
            return fourier
    raise Refused(f"the norm of Blur is unknown: its conv or conv_transpose was replaced. {REMEDY}")


def _check_padding(physics: Blur | Downsampling) -> None:
    if physics.padding not in _AT_EVERY_SIZE:
        raise Refused(
            f"the norm of {type(physics).__name__} with padding='{physics.padding}' is unknown: 'valid', 'circular' and "
            "'constant' are covered, 'reflect' and 'replicate' for a nonnegative filter without use_fft when the problem "
            f"is posed. {REMEDY}"
        )


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
