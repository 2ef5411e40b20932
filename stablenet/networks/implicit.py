"""Derivatives of a ridge potential's proximal map by the implicit function theorem: one linear system, no unrolling.

Source: x = prox_R(y; w) has x - y + grad R(x; w) = 0, so dx = (I + Hess R)^(-1) (dy - d_w grad R(x)) (docs/theorems.md, V2);
the system is solved by conjugate gradients, as I + Hess R >= (1 - M) I.
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
            along = -_pairing(level, x, v, bank, bends, scales)
        return v, *torch.autograd.grad(along, (bank, bends, scales)), None, None, None, None


def _pairing(level: Level, x: Tensor, v: Tensor, bank: Tensor, bends: Tensor, scales: Tensor) -> Tensor:
    """<v, grad R(x)> = <W v, s phi(W x/s)>, differentiable in the weights."""
    matrix, size = product_matrix(bank).to(level.matrix.dtype), bank.shape[-1]
    s = scales.repeat(1, 4)[:, None, None, None]
    inside = level.inside(x)
    u, w = (features(level.wide(image), matrix, size) * inside for image in (x, v))
    return (w * s * profiles.differentiable(u / s, bends.repeat(4, 1))).sum()


@torch.no_grad()
def conjugate_gradients(operator: Callable[[Tensor], Tensor], right: Tensor) -> Tensor:
    """x with operator(x) = right up to TOLERANCE, or after ITERATIONS, each image by itself; the operator is positive."""
    x, residual, direction = torch.zeros_like(right), right, right
    size = first = _inner(residual, residual)
    for _ in range(ITERATIONS):
        image = operator(direction)
        rate = size / _inner(direction, image).clamp_min(torch.finfo(right.dtype).tiny)
        x, residual = x + rate * direction, residual - rate * image
        new = _inner(residual, residual)
        if bool((new <= TOLERANCE**2 * first).all()):
            break
        direction, size = residual + new / size.clamp_min(torch.finfo(right.dtype).tiny) * direction, new
    return x


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2, 3), keepdim=True)
