"""Neurons of two-layer networks as columns of a program, priced cell by cell of the points' hyperplane arrangement.

Source: the cells make it convex [PilanciErgen2020]; a projection onto a cone is a nonnegative least-squares problem
[LawsonHanson1974]. Statement: docs/theorems.md, M5.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stablenet.rounding import UNIT_ROUNDOFF, dot_product_margin

Array = npt.NDArray[np.float64]
AT_ONCE = 20
"""New columns of one pricing."""


class Neurons:
    """The neurons found so far on points X (n, d) with labels y: unit vectors w and signs s.

    columns : (n, k), s y_i max(w.x_i, 0).
    grown : whether the last pricing found a new one.
    """

    def __init__(self, X: Array, y: Array, patterns: npt.NDArray[np.bool_]) -> None:
        self.points, self.labels = X, y
        self.patterns = np.unique(patterns, axis=0)
        self.vectors = np.zeros((0, X.shape[1]))
        self.signs = np.zeros(0)
        self.columns = np.zeros((len(y), 0))
        self.grown = False

    def price(self, weights: Array, *, at_least: float) -> float:
        """An upper bound, rounded outward, of max |sum_i p_i y_i max(w.x_i, 0)| over the cells and |w| <= 1.

        The best neurons of a value above `at_least` become columns. For w in the cell, A w >= 0 with rows +-x_i, and every
        z >= 0: c.w <= (c + A^T z).w <= |c + A^T z|, c = sum of p_i y_i x_i over the cell; nonnegative least squares find z.
        """
        upper, found = 0.0, []
        longest = dot_product_margin(2 * sum(self.points.shape) + 8, UNIT_ROUNDOFF)
        for pattern in self.patterns:
            cone = np.where(pattern, 1.0, -1.0)[:, None] * self.points
            for sign in (1.0, -1.0):
                c = sign * (weights * self.labels * pattern) @ self.points
                z = _multipliers(cone, c)
                projected = c + z @ cone
                value = float(np.linalg.norm(projected))
                error = longest * float(np.linalg.norm((weights * pattern) @ abs(self.points) + z @ abs(self.points)))
                upper = max(upper, (value + error) * (1 + 4 * longest))
                if value > at_least + error:
                    found.append((value, sign, projected / value))
        self._add(sorted(found, key=lambda entry: -entry[0])[: 4 * AT_ONCE])
        return upper

    def _add(self, found: list[tuple[float, float, Array]]) -> None:
        before, taken = len(self.signs), 0
        for _, sign, vector in found:
            column = sign * self.labels * np.maximum(self.points @ vector, 0)
            if taken < AT_ONCE and not (abs(self.columns - column[:, None]) < 1e-12).all(0).any():
                self.columns = np.column_stack([self.columns, column])
                self.vectors, self.signs = np.vstack([self.vectors, vector]), np.append(self.signs, sign)
                taken += 1
        self.grown = len(self.signs) > before

    def margin(self, amounts: Array) -> float:
        """min_i y_i f(x_i)/sum a; 0 where all are 0."""
        total = float(amounts.sum())
        return float((self.columns @ amounts).min()) / total if total else 0.0

    def used(self, amounts: Array) -> tuple[Tensor, Tensor]:
        """Vectors (k, d) and outputs s a/sum a (k,) of the neurons that are not 0."""
        kept = amounts > 1e-12 * amounts.sum()
        outputs = self.signs[kept] * amounts[kept] / amounts[kept].sum()
        return torch.from_numpy(self.vectors[kept]), torch.from_numpy(outputs)


def _multipliers(cone: Array, c: Array) -> Array:
    """z >= 0 with the least |c + cone^T z|; 0, which is as valid and looser, where the iteration does not end."""
    from scipy.optimize import nnls

    try:
        return nnls(cone.T, -c, maxiter=100 * len(cone))[0]
    except RuntimeError:
        return np.zeros(len(cone))


def largest_minimum(columns: Array) -> tuple[Array, Array]:
    """a >= 0, sum a = 1 with the largest min_i (columns a)_i, at a vertex, and the dual weights p >= 0 of the points, sum 1."""
    from scipy.optimize import linprog

    n, k = columns.shape
    found = linprog(
        np.append(np.zeros(k), -1.0),
        A_ub=np.column_stack([-columns, np.ones(n)]),
        b_ub=np.zeros(n),
        A_eq=np.append(np.ones(k), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * k + [(None, None)],
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if found.x is None:
        raise ValueError(f"the linear program was not solved: {found.message}; scale the points to about 1")
    dual = np.maximum(-found.ineqlin.marginals, 0)
    return np.maximum(found.x[:k], 0), dual / dual.sum()


def dual_and_loss(columns: Array, amounts: Array) -> tuple[Array, float]:
    """p_i = sigmoid(-m_i)/n, minus the derivative of the loss mean log(1 + exp(-m)) at m = columns a, and the loss."""
    from scipy.special import expit

    margins = columns @ amounts
    return expit(-margins) / len(margins), float(np.logaddexp(0, -margins).mean())


def entropy(dual: Array) -> float:
    """-mean(q log q + (1 - q) log(1 - q)), q = n p: below every value of loss + penalty where p prices no neuron above it."""
    from scipy.special import entr, xlog1py

    shares = len(dual) * dual
    return float((entr(shares) - xlog1py(1 - shares, -shares)).mean())


def least_penalized(columns: Array, penalty: float) -> Array:
    """argmin mean log(1 + exp(-columns a)) + penalty sum a over a >= 0, the objective taken in units of the penalty.

    Newton steps on g(a) = z, a_j z_j = mu for a mu that falls once they are nearly solved [Wright1997]; on them the objective
    minus mu sum log a falls, and the Hessian C^T S C + Z/A is inverted by n x n systems.
    """
    n, k = columns.shape
    a, z, mu = np.full(k, 1 / max(k, 1)), np.ones(k), 1.0
    for _ in range(500):
        dual, _ = dual_and_loss(columns, a)
        gradient = 1 - dual @ columns / penalty
        if max(abs(gradient - z).max(), abs(a * z - mu).max()) <= max(10 * mu, 1e-9):
            if k * mu <= 1e-11 * a.sum():
                break
            mu *= 0.1
        right = mu / a - gradient
        rooted = np.sqrt(dual * (1 - n * dual) / penalty)[:, None] * columns
        scaled = rooted * (a / z)
        moved = a / z * (right - rooted.T @ np.linalg.solve(np.eye(n) + scaled @ rooted.T, scaled @ right))
        turned = mu / a - z - z / a * moved
        a = a + _falling(columns, penalty, mu, a, moved, float(right @ moved)) * moved
        z = z + min(1.0, 0.99 / max(float((-turned / z).max()), 1e-9)) * turned
    return a


def _falling(columns: Array, penalty: float, mu: float, a: Array, moved: Array, slope: float) -> float:
    """A step of at most 1 that keeps a > 0 and lowers the objective minus mu sum log a in proportion, to rounding."""

    def value(step: float) -> float:
        point = a + step * moved
        return dual_and_loss(columns, point)[1] / penalty + float(point.sum() - mu * np.log(point).sum())

    step, start = min(1.0, 0.99 / max(float((-moved / a).max()), 1e-9)), value(0.0)
    for _ in range(40):
        if value(step) <= start - 1e-4 * step * slope + 1e-12 * abs(start):
            break
        step /= 2
    return step
