"""Products with the columns D_i X of all gates, block by block: no n x (gates d) matrix is ever stored.

Source: the operator of [PilanciErgen2020]: V to sum_i D_i X V_i, and its adjoint R to X^T D_i R.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

ENTRIES = 2**21
"""Of one block of gates times data times outputs: 16 MiB in double precision."""


def rough_norm(X: Tensor, *, steps: int = 10) -> float:
    """About |X|, from below: what steps and scales begin with, no bound."""
    v = X.new_ones(X.shape[1])
    for _ in range(steps):
        w = X.T @ (X @ v)
        v = w / torch.linalg.vector_norm(w).clamp_min(torch.finfo(X.dtype).tiny)
    return max(float(torch.linalg.vector_norm(X @ v)), torch.finfo(X.dtype).tiny)


@dataclass(frozen=True)
class Products:
    """V (gates, outputs, d) to sum_i D_i X V_i (n, outputs), and back.

    Parameters
    ----------
    X : (n, d).
    masks : (gates, n), bool, or X's type where it is small enough to keep.
    """

    X: Tensor
    masks: Tensor

    @staticmethod
    def of(X: Tensor, patterns: Tensor) -> Products:
        """With patterns (gates, n) bool."""
        return Products(X, patterns.to(X.dtype) if patterns.numel() <= 4 * ENTRIES else patterns)

    def at(self, index: Tensor) -> Products:
        """With the gates of some indices (k,) alone."""
        return Products(self.X, self.masks[index])

    def forward(self, V: Tensor) -> Tensor:
        """sum_i D_i X V_i: (gates, outputs, d) to (n, outputs)."""
        outputs = V.shape[1]
        Z = self.X.new_zeros(outputs, len(self.X))
        for start, masks in self._blocks(outputs):
            block = V[start : start + len(masks)]
            products = (block.reshape(-1, block.shape[-1]) @ self.X.T).view(len(masks), outputs, -1)
            Z += (products * masks[:, None]).sum(0)
        return Z.T

    def adjoint(self, R: Tensor) -> Tensor:
        """X^T D_i R for every gate: (n, outputs) to (gates, outputs, d)."""
        outputs, d = R.shape[1], self.X.shape[1]
        parts = [
            ((masks[:, None] * R.T).reshape(-1, len(R)) @ self.X).view(len(masks), outputs, d)
            for _, masks in self._blocks(outputs)
        ]
        return torch.cat(parts) if parts else self.X.new_zeros(0, outputs, d)

    def _blocks(self, outputs: int) -> Iterator[tuple[int, Tensor]]:
        size = max(1, ENTRIES // max(1, len(self.X) * outputs))
        for start in range(0, len(self.masks), size):
            yield start, self.masks[start : start + size].to(self.X.dtype)
