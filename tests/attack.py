"""Gradient ascent against a claimed constant: random pairs are weak, they miss most of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Found:
    """The worst pairs that an attack met: lower bounds of the true constants."""

    lipschitz: float
    averagedness: float


def _sizes(d: Tensor) -> Tensor:
    return d.flatten(1).norm(dim=1).reshape(-1, *[1] * (d.ndim - 1))


def attack(
    function: Map,
    shape: tuple[int, ...],
    *,
    averagedness: float | None = None,
    iterations: int = 15,
    pairs: int = 6,
    spread: float = 1.0,
    centre: float = 0.0,
    seed: int = 0,
    distances: tuple[float, float] = (1e-3, 3.0),
    start: Tensor | None = None,
    around: Tensor | None = None,
) -> Found:
    """Raise |Tx - Ty|^2 + w |(I-T)x - (I-T)y|^2 over |x - y|^2 by power steps in x - y and gradient steps in x.

    w = (1 - alpha)/alpha for the claimed alpha, so that more than 1 refutes it; w = 0 for half of the pairs, to
    refute the Lipschitz constant. `start` is a first direction of x - y; x starts at `around` (or `centre`) plus noise.
    """
    generator = torch.Generator().manual_seed(seed)
    x = (centre if around is None else around) + spread * torch.randn((pairs, *shape), generator=generator, dtype=torch.float64)
    direction = torch.randn((pairs, *shape), generator=generator, dtype=torch.float64)
    direction = direction if start is None else start.expand_as(direction)
    column = (pairs, *[1] * len(shape))
    distance = torch.logspace(*torch.tensor(distances).log10().tolist(), pairs, dtype=torch.float64).reshape(column)
    weight = torch.zeros(column, dtype=torch.float64)
    if averagedness is not None and averagedness > 0:
        weight[::2] = (1 - averagedness) / averagedness
    lipschitz = alpha = 0.0
    for _ in range(iterations):
        x, d = x.detach().requires_grad_(), (direction * distance / _sizes(direction)).requires_grad_()
        moved = function(x + d) - function(x)
        rest = d - moved
        length = d.detach().flatten(1).square().sum(1)
        ratio = moved.detach().flatten(1).square().sum(1) / length
        defect = rest.detach().flatten(1).square().sum(1) / length
        lipschitz = max(lipschitz, float(ratio.max()) ** 0.5)
        # alpha-averaged: |r|^2 <= 2 alpha <r, d> for r = (I-T)x - (I-T)y; below 1e-10 the left side is rounding
        inner = 2 * (rest * d).detach().flatten(1).sum(1) / length
        allowed = torch.where(inner > 0, defect / inner.clamp_min(1e-300), torch.inf)
        alpha = max(alpha, float(torch.where(defect > 1e-10, allowed, 0.0).max()))
        value = ((moved.square() + weight * rest.square()).flatten(1).sum(1) / length).sum()
        step, direction = torch.autograd.grad(value, (x, d))
        size = _sizes(step)
        x = x + torch.where(size > 0, 0.3 * distance * step / size.clamp_min(1e-300), 0.0)
        direction = torch.where(_sizes(direction) > 0, direction, d.detach())
    return Found(lipschitz, alpha)


def steepest_gain(function: Map, x: Tensor, *, iterations: int = 40, seed: int = 0) -> float:
    """The largest |J v|/|v| of the Jacobian at the points x (batch, ...), by power iteration: a map between any two spaces."""
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    largest = 0.0
    for _ in range(iterations):
        v = v / _sizes(v).clamp_min(1e-300)
        _, image = torch.autograd.functional.jvp(function, x, v)
        largest = max(largest, float(image.flatten(1).norm(dim=1).max()))
        _, v = torch.autograd.functional.vjp(function, x, image)
    return largest
