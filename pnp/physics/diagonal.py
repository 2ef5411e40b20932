"""Operators that are diagonal in an orthonormal basis: |A| = max |mask|, and A^T A >= min |mask|^2 (docs/theorems.md, F1)."""

from __future__ import annotations

import math

import torch
from deepinv.physics import MRI, BlurFFT, DecomposablePhysics, Demosaicing, Denoising, Inpainting
from torch import Tensor

from pnp.bounds import Refused
from pnp.physics.alterations import REMEDY, require_as_constructed
from pnp.physics.smoothness import Smoothness, checked, rule


@rule(Denoising, Inpainting, Demosaicing)
def _masked(physics: DecomposablePhysics) -> Smoothness:
    """The canonical basis."""
    require_as_constructed(physics)
    return from_singular_values(checked(physics, "mask"), slack=0.0)


@rule(MRI)
def _mri(physics: MRI) -> Smoothness:
    """The Fourier basis, in two or three axes; real and imaginary part are two real channels with a mask each."""
    require_as_constructed(physics)
    return from_singular_values(checked(physics, "mask"), slack=transform_rounding(physics.mask))


@rule(BlurFFT)
def _blur_fft(physics: BlurFFT) -> Smoothness:
    """The Fourier basis of real images: the frequencies that are not stored are the conjugates of those that are.

    The mask holds the modulus of the filter's transform twice, for the real and the imaginary part, and `angle` its phase.
    Numbers that were written there afterwards belong to no filter, and need not be symmetric.
    """
    require_as_constructed(physics)
    kernel, mask, size = checked(physics, "filter"), checked(physics, "mask"), tuple(physics.img_size[-2:])
    if kernel.shape[-2] > size[0] or kernel.shape[-1] > size[1]:
        raise Refused(
            f"BlurFFT with a filter of {tuple(kernel.shape[-2:])} on images of {size} is not covered: the filter is larger "
            "than the image and is cropped. Crop it yourself, or use larger images."
        )
    made = physics.get_filter_parameters(physics.img_size, kernel, kernel.device)
    here, there = _symbol(mask, physics.angle), _symbol(made["mask"], made["angle"])
    if here.shape != there.shape or not bool((here - there).abs().max() <= 1e-5 * there.abs().max()):
        raise Refused(f"the norm of BlurFFT is unknown: its mask or angle is not that of its filter. {REMEDY}")
    return from_singular_values(here, slack=transform_rounding(mask))


def _symbol(mask: Tensor, angle: Tensor) -> Tensor:
    return mask.detach().double() * angle.detach().to(torch.complex128).unsqueeze(-1)


def from_singular_values(singular_values: Tensor, *, slack: float) -> Smoothness:
    """Both ends of the spectrum of A^T A from the singular values of A, outwards by a relative slack of the upper end."""
    moduli = singular_values.detach().abs().double()
    smallest, largest = float(moduli.min()), float(moduli.max())
    upper = largest**2 * (1 + slack)
    bound = upper if upper in (0.0, 1.0) else math.nextafter(upper, math.inf)
    lower = max(0.0, smallest**2 - slack * bound)
    return Smoothness(
        bound,
        "max |mask|^2, exact for a diagonal physics",
        exact_prox=True,
        strong_convexity=lower if lower in (0.0, 1.0) else math.nextafter(lower, 0.0),
        convexity_reason="min |mask|^2, exact for a diagonal physics",
    )


def transform_rounding(values: Tensor) -> float:
    """Eight units in the last place: what an orthonormal Fourier transform of that precision adds, relatively to |x|."""
    return 8 * torch.finfo(values.dtype).eps
