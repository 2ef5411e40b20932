"""Power iterations: lower bounds of norms, which certify nothing.

Source: the power method on A^T A, for a linear map or for the Jacobian of any map at a point.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.functional import jvp, vjp

LinearFunction = Callable[[Tensor], Tensor]


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


def jacobian_norm(
    network: LinearFunction, x: Tensor, *, iterations: int = 15, generator: torch.Generator | None = None
) -> float:
    """The largest |J v|/|v| met in `iterations` steps of the power method at each of the points x (batch, ...).

    `generator` draws the first v (seed 0 when None). The map may lead to any other space.
    """
    generator = generator or torch.Generator().manual_seed(0)
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    largest = 0.0
    for _ in range(iterations):
        v = v / v.flatten(1).norm(dim=1).clamp_min(1e-30).reshape(-1, *[1] * (x.ndim - 1))
        _, image = jvp(network, x, v)
        largest = max(largest, float(image.flatten(1).norm(dim=1).max()))
        _, v = vjp(network, x, image)
    return largest
