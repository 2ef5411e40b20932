"""Deblurring without learning, behind a circular blur: Tikhonov, total variation and wavelets, as streams of iterates.

Sources: the over-relaxed primal-dual method [Condat2013] for total variation; proximal gradient [CombettesYamada2015], with
momentum, and deepinv's thresholding for wavelets. Each yields (estimate, residual), the root mean square of its step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import deepinv
import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

Steps = Iterator[tuple[Tensor, float]]
OVERRELAXATION = 1.9
SPREAD = 0.01
"""How far images are from their restoration, in units of which the two step sizes of the primal-dual method are balanced."""


def tikhonov(y: Tensor, physics: LinearPhysics, weight: float) -> Steps:
    """argmin |Ax - y|^2/2 + weight/2 |Gx|^2, G periodic differences: a formula in the Fourier domain, then the box."""
    symbol = symbol_of(y, physics)
    rows, columns = (torch.arange(n) * (2 * math.pi / n) for n in y.shape[-2:])
    differences = 4 - 2 * torch.cos(rows)[:, None] - 2 * torch.cos(columns[: y.shape[-1] // 2 + 1])
    image = symbol.conj() * torch.fft.rfft2(y) / (symbol.abs().square() + weight * differences)
    yield torch.fft.irfft2(image, s=y.shape[-2:]).clamp(0, 1), 0.0


def total_variation(y: Tensor, physics: LinearPhysics, weight: float) -> Steps:
    """argmin over the box of |Ax - y|^2/2 + weight sum |(Gx)_p|, G forward differences inside the image.

    x+ = prox_(tau f)(x - tau K^T u), u+ = prox_(sigma g*)(u + sigma K(2x+ - x)), then over-relaxed, with K = [G; I],
    |K|^2 <= 9 = 1/(tau sigma), so that it converges to a global minimizer.
    """
    symbol, tau = symbol_of(y, physics), SPREAD / weight
    sigma, back = 1 / (9 * tau), symbol.conj() * torch.fft.rfft2(y)
    x, u = y.clamp(0, 1), torch.zeros(3, *y.shape, dtype=y.dtype)
    while True:
        v = torch.fft.rfft2(x - tau * (_differences_adjoint(u[:2]) + u[2]))
        moved = torch.fft.irfft2((v + tau * back) / (1 + tau * symbol.abs().square()), s=y.shape[-2:])
        ahead = 2 * moved - x
        dual = u + sigma * torch.cat((_differences(ahead), ahead[None]))
        dual[:2] /= (dual[:2].square().sum(0).sqrt() / weight).clamp(min=1)
        dual[2] -= sigma * (dual[2] / sigma).clamp(0, 1)
        step, turn = moved - x, dual - u
        yield moved.clamp(0, 1), max(_rms(step), tau * _rms(turn))
        x, u = x + OVERRELAXATION * step, u + OVERRELAXATION * turn


def wavelets(y: Tensor, physics: LinearPhysics, weight: float) -> Steps:
    """Accelerated z -> W(z - grad f(z)), W deepinv's soft thresholding by `weight` of padded wavelets, then the box.

    Raises
    ------
    ImportError : the package ptwt is missing.
    """
    threshold = deepinv.models.WaveletDenoiser(level=3, wv="db4")
    x, z, t = y, y, 1.0
    while True:
        moved = threshold(z - physics.A_adjoint(physics.A(z) - y), weight)
        following = (1 + math.sqrt(1 + 4 * t * t)) / 2
        yield moved.clamp(0, 1), _rms(moved - x)
        x, z, t = moved, moved + (t - 1) / following * (moved - x), following


def symbol_of(y: Tensor, physics: LinearPhysics) -> Tensor:
    """The eigenvalues of a circular convolution: the Fourier transform of its impulse response."""
    impulse = torch.zeros_like(y)
    impulse[..., 0, 0] = 1
    return torch.fft.rfft2(physics.A(impulse))


def _differences(x: Tensor) -> Tensor:
    """(2, ...): to the next row and the next column, 0 at the last."""
    out = x.new_zeros(2, *x.shape)
    out[0, ..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    out[1, ..., :-1] = x[..., 1:] - x[..., :-1]
    return out


def _differences_adjoint(u: Tensor) -> Tensor:
    out = torch.zeros_like(u[0])
    out[..., 1:, :] += u[0, ..., :-1, :]
    out[..., :-1, :] -= u[0, ..., :-1, :]
    out[..., 1:] += u[1, ..., :-1]
    out[..., :-1] -= u[1, ..., :-1]
    return out


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
