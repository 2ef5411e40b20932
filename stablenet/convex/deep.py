"""Three-layer ReLU networks as convex programs: their columns, all of them, with prices that are proved.

Source: [ErgenPilanci2021], theorem 1, with the sub-networks' first layers normalized; docs/theorems.md, X6. A column is a
sub-network whose first layer's neurons lie in cells D_1, ..., D_m with signs s_j, and whose second layer is on at the data of
D: o D sum_j s_j D_j X u_j.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from stablenet.convex.datafits import Datafit
from stablenet.convex.duality import fenchel_bound
from stablenet.convex.gates import Gates
from stablenet.convex.networks import ConvexNetwork, weight_decay, within
from stablenet.convex.penalties import GroupNorm
from stablenet.rounding import UNIT_ROUNDOFF, dot_product_margin

MOST = 200_000


@dataclass(frozen=True)
class Columns:
    """Sub-networks by their activation patterns, each a group of m vectors.

    Parameters
    ----------
    cells : (groups, m), the gate of each neuron.
    signs : (groups, m) of the second layer's weights, 1 or -1.
    on : (groups, n) bool, the second layer's pattern D.
    free : (groups, n) bool, where its sign is not implied by the cells and signs, so that it is a constraint.
    """

    cells: Tensor
    signs: Tensor
    on: Tensor
    free: Tensor

    def __len__(self) -> int:
        return len(self.cells)

    def at(self, index: Tensor) -> Columns:
        """Those of some indices."""
        return Columns(self.cells[index], self.signs[index], self.on[index], self.free[index])


def columns(gates: Gates, inner: int, *, most: int = MOST) -> Columns:
    """All columns of sub-networks with `inner` neurons in the first layer.

    Neurons whose second-layer weights are of one sign are a two-layer network, so every column has both signs; a pattern is
    free only where neurons of both signs are on.

    Raises
    ------
    ValueError : inner < 2, or more than `most` columns; the message says how many.
    """
    if inner < 2:
        raise ValueError(f"sub-networks need at least 2 neurons in the first layer, got {inner}: with one they have two layers")
    patterns = gates.patterns.cpu().numpy()
    kinds: list[tuple[tuple[int, ...], int]] = []
    total = 0
    for plus in range(1, inner):
        for first in itertools.combinations_with_replacement(range(len(patterns)), plus):
            for second in itertools.combinations_with_replacement(range(len(patterns)), inner - plus):
                both = patterns[list(first)].any(0) & patterns[list(second)].any(0)
                total += 2 ** int(both.sum())
                kinds.append((first + second, plus))
                if total > most:
                    raise ValueError(
                        f"three layers over {len(gates)} gates of {gates.patterns.shape[1]} data have more than most={most} "
                        "columns: take depth 2, fewer data or fewer gates"
                    )
    rows = [_patterns(patterns, cells, plus) for cells, plus in kinds]
    counts = [len(on) for on, _ in rows]
    signs = [[1] * plus + [-1] * (inner - plus) for _, plus in kinds]
    return Columns(
        torch.tensor([cells for cells, _ in kinds]).repeat_interleave(torch.tensor(counts), 0),
        torch.tensor(signs).repeat_interleave(torch.tensor(counts), 0),
        torch.from_numpy(np.concatenate([on for on, _ in rows])),
        torch.from_numpy(np.concatenate([np.broadcast_to(free, on.shape) for on, free in rows])),
    )


def _patterns(patterns: np.ndarray, cells: tuple[int, ...], plus: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pattern of the second layer (k, n), and where it is free (n,)."""
    up, down = (np.logical_or.reduce(patterns[list(part)], 0) for part in (cells[:plus], cells[plus:]))
    where = np.flatnonzero(up & down)
    on = np.repeat((up & ~down)[None], 2 ** len(where), 0)
    on[:, where] = np.array(list(itertools.product((True, False), repeat=len(where))), dtype=bool).reshape(len(on), -1)
    return on, np.logical_and(up, down)


@dataclass(frozen=True)
class DeepProgram:
    """min f + penalty over three-layer networks of sub-networks with `inner` neurons; a group's length is sum_j |u_j|.

    Parameters
    ----------
    X : (n, d), y : (n, outputs), as for `Program`; a sub-network feeds one output.
    gates : of the first layer; complete ones for a certified gap.
    inner : m >= 2.
    """

    X: Tensor
    y: Tensor
    gates: Gates
    datafit: Datafit
    penalty: GroupNorm
    inner: int = 2

    @cached_property
    def columns(self) -> Columns:
        """All of them."""
        return columns(self.gates, self.inner)

    def linear(self, part: Columns) -> Tensor:
        """D s_j D_j X of every column and neuron, (groups, m, n, d)."""
        masks = part.signs[:, :, None] * (self.gates.patterns[part.cells] & part.on[:, None])
        return masks[..., None].to(self.X.dtype) * self.X

    def constraints(self, part: Columns, g: int) -> Tensor:
        """B of one column, (constraints, m, d): B u >= 0."""
        n, d = self.X.shape
        m = self.inner
        rows = self.X.new_zeros(m * n, m, d)
        for j in range(m):
            gate = self.gates.patterns[part.cells[g, j]]
            rows[j * n : (j + 1) * n, j] = torch.where(gate[:, None], self.X, -self.X)
        active = part.signs[g][:, None] * self.gates.patterns[part.cells[g]]  # (m, n)
        second = (active.T[..., None] * self.X[:, None]) * torch.where(part.on[g], 1, -1)[:, None, None]
        return torch.cat([rows, second[part.free[g]]])

    def lower_bound(self, R: Tensor, polar: float) -> float:
        """A number that no network of these columns goes below, for an upper bound `polar` of their prices (X2)."""
        return fenchel_bound(self.datafit, self.penalty, self.y, self.datafit.into_domain(R, self.y), polar)

    def export(self, part: Columns, owners: Tensor, U: Tensor) -> ConvexNetwork:
        """The network of groups U (k, m, d) of some columns: w_j = u_j/sqrt(c|u_j|), s_j sqrt|u_j|, o sqrt(c), c = sum_j |u_j|.

        owners : (k, 2), output and its sign o of each.
        """
        sizes = torch.linalg.vector_norm(U, dim=2)
        used = sizes.sum(1) > 0
        U, sizes, owners, signs = U[used], sizes[used], owners[used], part.signs[used]
        total = sizes.sum(1)
        hidden = U / (total[:, None] * sizes).sqrt().clamp_min(torch.finfo(U.dtype).tiny)[..., None]
        output = U.new_zeros(self.y.shape[1], len(U))
        output[owners[:, 0], torch.arange(len(U))] = owners[:, 1] * total.sqrt()
        return within(ConvexNetwork(hidden, signs * sizes.sqrt(), output), self.penalty.most)

    def objective(self, network: ConvexNetwork) -> float:
        """The value of a network, whatever its weights: an upper bound of the optimum."""
        fit = float(self.datafit.value(network(self.X).detach(), self.y))
        return fit + self.penalty.weight * weight_decay(network)


def price(B: Tensor, c: Tensor, *, enough: float, start: Tensor | None = None, steps: int = 40) -> tuple[float, float]:
    """Bounds (lower, upper) of sup <c, u> over B u >= 0, sum_j |u_j| <= 1; c (m, d), B (constraints, m, d).

    Upper: max_j |c_j + (B^T l)_j| for any l >= 0. Lower: u_j = t_j w_j, where w is least in sum_j t_j |w_j|^2. It stops where
    upper <= enough, or lower > enough. start : multipliers to try first.
    """
    m, d = c.shape
    matrix, target = B.numpy().reshape(len(B), m * d), c.numpy().ravel()
    slack = dot_product_margin(sum(matrix.shape) + 8, UNIT_ROUNDOFF)
    size, upper, lower = float(np.linalg.norm(matrix)), float(torch.linalg.vector_norm(c, dim=1).max()), 0.0
    shares = np.full(m, 1 / m)
    tries = [] if start is None else [np.maximum(start.numpy(), 0)]
    for _ in range(steps):
        if upper <= enough or lower > enough:
            break
        root = np.repeat(np.sqrt(shares), d)
        fresh = not tries
        multipliers = tries.pop() if tries else _nonnegative(matrix * root, -target * root)
        w = np.linalg.norm((target + multipliers @ matrix).reshape(m, d), axis=1)
        upper = min(upper, float(w.max()) + slack * (size * float(np.linalg.norm(multipliers)) + float(np.linalg.norm(target))))
        if fresh:
            lower = max(lower, float((shares * w**2).sum() / max((shares * w).sum(), 1e-300)) * (1 - 1e-12))
            shares = np.maximum(shares * w, 1e-12 * (shares * w).sum() + 1e-300)
            shares /= shares.sum()
        if upper - lower <= 1e-13 * upper:
            break
    return lower, upper


def _nonnegative(rows: np.ndarray, target: np.ndarray) -> np.ndarray:
    scale = float(np.linalg.norm(target))
    if not scale:
        return np.zeros(len(rows))
    try:
        return np.asarray(scale * nnls(rows.T, target / scale, maxiter=30 * max(rows.shape))[0])
    except RuntimeError:
        return np.zeros(len(rows))


def with_weight(program: DeepProgram, weight: float) -> DeepProgram:
    """The same with another beta."""
    return replace(program, penalty=replace(program.penalty, weight=weight))
