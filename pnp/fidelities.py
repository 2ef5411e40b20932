"""Data fidelities g(z) of a measurement y: f(x) = g(Ax) [BauschkeCombettes2017, examples 13.6 and 24.2]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class L2:
    """g(z) = 1/2 |z - y|^2, the least squares of Gaussian noise; smooth with constant 1 and strongly convex with 1."""

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """g(z) of each image, (batch,), summed in double precision."""
        return torch.linalg.vector_norm((z - y).flatten(1), dim=1, dtype=torch.float64) ** 2 / 2

    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        """z - y."""
        return z - y

    def prox(self, z: Tensor, y: Tensor, step_size: float) -> Tensor:
        """argmin over p of s g(p) + 1/2 |p - z|^2 = (z + s y)/(1 + s), s = step_size."""
        return (z + step_size * y) / (1 + step_size)

    def conjugate_prox(self, u: Tensor, y: Tensor, step_size: float) -> Tensor:
        """prox of s g*, g*(u) = 1/2 |u|^2 + <u, y>: (u - s y)/(1 + s), s = step_size (Moreau)."""
        return (u - step_size * y) / (1 + step_size)
