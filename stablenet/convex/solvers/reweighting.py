"""Iterative reweighting: a gated network as multiple-kernel learning, one kernel ridge regression a step [Dwaraknath2023].

K_eta = sum_i eta_i D_i X X^T D_i; a = (K_eta + beta I)^(-1) y, v_i = eta_i X^T D_i a, eta_i <- |v_i|. The objective never
rises, its gap falls like 1/k (docs/theorems.md, X5): the optimum itself is Newton's, from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stablenet.convex.program import Program
from stablenet.convex.solvers.protocol import Iterate


def masked_kernel(X: Tensor, patterns: Tensor, weights: Tensor) -> Tensor:
    """K_eta = sum_i eta_i D_i X X^T D_i (n, n), of X (n, d), patterns (gates, n) bool and weights eta (gates,)."""
    masks = patterns.to(X.dtype)
    return (X @ X.T) * (masks.T @ (weights[:, None] * masks))


@dataclass(frozen=True)
class Reweighting:
    """Kernels reweighted by what their networks learned.

    Parameters
    ----------
    tolerance : of the relative gap.
    iterations : at most, at least 1.
    weights : the first eta (gates,), positive; None for equal ones of sum one, which for sampled gates is the tangent kernel.
    """

    tolerance: float = 1e-4
    iterations: int = 100
    weights: Tensor | None = None
    needs: ClassVar[frozenset[str]] = frozenset({"squared", "unbounded", "unconstrained"})

    def iterate(self, program: Program, start: Tensor | None = None) -> Iterator[Iterate]:
        X, y, bound = program.X, program.y, -torch.inf
        eta = X.new_full((len(program.gates),), 1 / len(program.gates)) if self.weights is None else self.weights
        if tuple(eta.shape) != (len(program.gates),) or not bool((eta > 0).all()):
            raise ValueError(f"{len(program.gates)} gates need as many positive weights, got {tuple(eta.shape)}")
        if start is not None and bool(start.any()):
            eta = program.lengths(start)[0, :, 0]
        ridge = program.penalty.weight / program.datafit.weight
        for _ in range(self.iterations):
            K = masked_kernel(X, program.gates.patterns, eta)
            a = torch.cholesky_solve(y, torch.linalg.cholesky(K + ridge * torch.eye(len(X), dtype=X.dtype, device=X.device)))
            V = eta[:, None, None] * program.correlations(a)
            R = -program.penalty.weight * a
            bound = max(bound, program.lower_bound(R))
            iterate = Iterate(V, program.objective(V), bound, R)
            yield iterate
            if iterate.relative_gap <= self.tolerance:
                return
            eta = program.lengths(V)[0, :, 0]
