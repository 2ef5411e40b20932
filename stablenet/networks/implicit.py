"""Derivatives of proximal maps by the implicit function theorem: one linear system, no unrolling.

Source: x = prox_R(y; w) has x - y + grad R(x; w) = 0, so dx = (I + Hess R)^(-1) (dy - d_w grad R(x)) (docs/theorems.md, V2);
the system is solved by conjugate gradients, as I + Hess R >= (1 - M) I. For R = <W x, m W x>/2 it is the same I + W^T m W both
ways, and dR along v in m is (W v)(W x) (V3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stablenet.linear.cells import features, product_matrix
from stablenet.networks import profiles
from stablenet.networks.level import Level
from stablenet.networks.proximal_point import proximal_map
from stablenet.potential import Potential

TOLERANCE = 1e-2
ITERATIONS = 10
RESOLVENT = (3e-3, 30)
"""Tolerance and iterations of a resolvent in training."""


class ImplicitProx(torch.autograd.Function):
    """prox_R(y) of a ridge potential given by (bank, bends, scales), differentiable in all four.

    half : products in bfloat16, as `Level` says.
    """

    @staticmethod
    def forward(
        context: Any,
        y: Tensor,
        bank: Tensor,
        bends: Tensor,
        scales: Tensor,
        potential: Potential,
        accuracy: float,
        steps: int,
        half: bool = False,
    ) -> Tensor:
        level = Level(bank, bends, scales, (y.shape[-2], y.shape[-1]), half=half)
        found = proximal_map(level.gradient, y, potential, accuracy=accuracy, max_iterations=steps)
        context.save_for_backward(found.image, bank, bends, scales)
        context.half = half
        return found.image

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = context.saved_tensors
        bank, bends, scales = (w.detach().requires_grad_(True) for w in weights)
        level = Level(bank.detach(), bends.detach(), scales.detach(), (x.shape[-2], x.shape[-1]), half=context.half)
        hessian = level.hessian(x)
        v = conjugate_gradients(lambda p: p + hessian(p), grad)
        with torch.enable_grad():
            along = -pairing(level, x, v, bank, bends, scales)
        return v, *torch.autograd.grad(along, (bank, bends, scales)), None, None, None, None


class ImplicitResolvent(torch.autograd.Function):
    """(I + W^T m W)^(-1) y, differentiable in y and in the weights m (batch, rows, columns, 4, 4 filters) of cells.

    half : products in bfloat16, as `Level` says.
    """

    @staticmethod
    def forward(context: Any, y: Tensor, bank: Tensor, weights: Tensor, half: bool = False) -> Tensor:
        level = Level.linear(bank, (y.shape[-2], y.shape[-1]), half=half)
        x = y - conjugate_gradients(_shifted(level, weights), level.weighted(y, weights), *RESOLVENT)
        context.save_for_backward(x, bank, weights)
        context.half = half
        return x

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, bank, weights = context.saved_tensors
        level = Level.linear(bank, (x.shape[-2], x.shape[-1]), half=context.half)
        v = conjugate_gradients(_shifted(level, weights), grad)
        inside = level.inside(x)
        u, w = (features(level.wide(image), level.matrix, level.kernel_size) * inside for image in (x, v))
        return v, None, -u * w, None


def _shifted(level: Level, weights: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda p: p + level.weighted(p, weights)


def pairing(level: Level, x: Tensor, v: Tensor, bank: Tensor, bends: Tensor, scales: Tensor) -> Tensor:
    """<v, grad R(x)> = <W v, s phi(W x/s)>, differentiable in the weights."""
    matrix, size = product_matrix(bank).to(level.matrix.dtype), bank.shape[-1]
    s = scales.repeat(1, 4)[:, None, None, None]
    inside = level.inside(x)
    u, w = (features(level.wide(image), matrix, size) * inside for image in (x, v))
    return (w * s * profiles.differentiable(u / s, bends.repeat(4, 1))).sum()


@torch.no_grad()
def conjugate_gradients(
    operator: Callable[[Tensor], Tensor],
    right: Tensor,
    tolerance: float | None = None,
    iterations: int | None = None,
    start: Tensor | None = None,
    *,
    goal: float | None = None,
) -> Tensor:
    """x with operator(x) = right, each image by itself, from `start` or zero; the operator is positive.

    It ends where all residuals are at most `tolerance` |right| (none: TOLERANCE) or, where a goal is given, at most the goal,
    or after so many iterations (none: ITERATIONS).
    """
    iterations, tiny = iterations or ITERATIONS, torch.finfo(right.dtype).tiny
    x = torch.zeros_like(right) if start is None else start
    residual = right if start is None else right - operator(start)
    direction, size = residual, _inner(residual, residual)
    enough = (tolerance or TOLERANCE) ** 2 * _inner(right, right) if goal is None else goal**2
    for _ in range(iterations):
        if bool((size <= enough).all()):
            break
        image = operator(direction)
        rate = size / _inner(direction, image).clamp_min(tiny)
        x, residual = x + rate * direction, residual - rate * image
        before, size = size, _inner(residual, residual)
        direction = residual + size / before.clamp_min(tiny) * direction
    return x


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2, 3), keepdim=True)
