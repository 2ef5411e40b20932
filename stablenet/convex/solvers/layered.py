"""Column generation for three layers: Clarabel on the columns at work, all columns priced.

Source: [ErgenPilanci2021]; the prices are upper bounds (docs/theorems.md, X6), so that no accuracy of Clarabel's is relied on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import block_diag
from torch import Tensor

from stablenet.convex.deep import Columns, DeepProgram, price
from stablenet.convex.networks import ConvexNetwork
from stablenet.convex.solvers.conic import group_lasso


@dataclass(frozen=True)
class DeepOptimum:
    """A three-layer network with its value and a proved lower bound over all of its kind; None where not all cells were there.

    program_gap : objective minus the lower bound over these gates alone.
    """

    network: ConvexNetwork
    objective: float
    lower_bound: float | None
    certified: bool
    program_gap: float

    @property
    def gap(self) -> float | None:
        """objective - lower_bound, at least 0; None where the bound is not known."""
        return None if self.lower_bound is None else max(self.objective - self.lower_bound, 0.0)


def solve_three_layers(
    program: DeepProgram,
    *,
    tolerance: float = 1e-7,
    at_once: int = 30,
    rounds: int = 60,
    progress: Callable[[float, float], None] | None = None,
) -> DeepOptimum:
    """The best three-layer network, with a certificate where the gates are complete.

    Parameters
    ----------
    tolerance : of the relative gap; Clarabel reaches about 1e-8.
    at_once : columns that come in together.
    progress : called with objective and lower bound after every round.

    Raises
    ------
    ImportError : cvxpy is not installed.
    ValueError : too many columns.
    """
    linear = program.linear(program.columns)
    work = _Work(program, linear, [], {})
    R = program.datafit.gradient(torch.zeros_like(program.y), program.y)
    best, bound = None, -math.inf
    for _ in range(rounds):
        polar, entering = work.priced(R, at_once)
        bound = max(bound, program.lower_bound(R, polar))
        if best is not None:
            if progress is not None:
                progress(best[0], bound)
            if best[0] - bound <= tolerance * abs(best[0]) or not entering:
                break
        network, R, multipliers = work.solved(entering)
        value = program.objective(network)
        best = (value, network) if best is None or value < best[0] else best
        work = _Work(program, linear, work.chosen + entering, multipliers)
    assert best is not None
    known = program.gates.complete
    return DeepOptimum(best[1], best[0], bound if known else None, known, max(best[0] - bound, 0.0))


Key = tuple[int, int, int]
"""Column, output, and the output's sign."""


@dataclass(frozen=True)
class _Work:
    program: DeepProgram
    linear: Tensor
    chosen: list[Key]
    multipliers: dict[Key, Tensor]

    def priced(self, R: Tensor, at_once: int) -> tuple[float, list[Key]]:
        """An upper bound of all prices, and the columns whose price is too high."""
        p, beta = self.program, self.program.penalty.weight
        level = beta * (1 + 1e-9) if self.chosen else 0.0
        polar, found = beta, []
        C = torch.einsum("gmnd,nc->gcmd", self.linear, R)
        lengths = torch.linalg.vector_norm(C, dim=3).amax(2)
        for g, c in torch.nonzero(lengths > beta).tolist():
            B = p.constraints(p.columns, g)
            for o in (1, -1):
                key = (g, c, o)
                lower, upper = price(B, -o * C[g, c], enough=beta, start=self.multipliers.get(key))
                polar = max(polar, upper)
                if lower > level and key not in self.chosen:
                    found.append((lower, key))
        found.sort(reverse=True)
        return polar, [key for _, key in found[:at_once]]

    def solved(self, entering: list[Key]) -> tuple[ConvexNetwork, Tensor, dict[Key, Tensor]]:
        """The best network of the columns at work and those that enter, its residual, and the columns' multipliers."""
        p, keys = self.program, self.chosen + entering
        n, outputs = p.y.shape
        m, d = p.inner, p.X.shape[1]
        if not keys:
            return self.nothing()
        blocks, cones = [], []
        for g, c, o in keys:
            A = np.zeros((n, outputs, m * d))
            A[:, c] = o * self.linear[g].permute(1, 0, 2).reshape(n, m * d).numpy()
            blocks.append(A.reshape(n * outputs, m * d))
            cones.append(p.constraints(p.columns, g).reshape(-1, m * d).numpy())
        A = np.concatenate(blocks, 1)
        solution = group_lasso(p.datafit, p.penalty, p.y, A, block_diag(cones, format="csr"), d, 1e-10)
        U = torch.from_numpy(solution.variables).reshape(len(keys), m, d).to(p.X)
        network = p.export(self.part(keys), torch.tensor([[c, o] for _, c, o in keys]), U)
        Z = torch.from_numpy(A @ solution.variables.ravel()).reshape(n, outputs).to(p.X)
        ends = np.cumsum([len(cone) for cone in cones])[:-1]
        assert solution.multipliers is not None
        split = [torch.from_numpy(part) for part in np.split(np.abs(solution.multipliers), ends)]
        return network, p.datafit.gradient(Z, p.y), dict(zip(keys, split, strict=True))

    def nothing(self) -> tuple[ConvexNetwork, Tensor, dict[Key, Tensor]]:
        p = self.program
        U = p.X.new_zeros(1, p.inner, p.X.shape[1])
        network = p.export(self.part([(0, 0, 1)]), torch.tensor([[0, 1]]), U)
        return network, p.datafit.gradient(torch.zeros_like(p.y), p.y), {}

    def part(self, keys: list[Key]) -> Columns:
        return self.program.columns.at(torch.tensor([g for g, _, _ in keys]))
