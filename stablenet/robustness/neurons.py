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
    """argmin mean log(1 + exp(-columns a)) + penalty sum a over a >= 0, the objective taken in units of the penalty."""
    from scipy.optimize import minimize

    def objective(a: Array) -> tuple[float, Array]:
        dual, loss = dual_and_loss(columns, a)
        return loss / penalty + a.sum(), 1 - dual @ columns / penalty

    k = columns.shape[1]
    start = np.full(k, 1 / max(k, 1))
    settings = {"maxcor": 50, "ftol": 0.0, "gtol": 1e-10, "maxiter": 20_000, "maxfun": 40_000}
    return np.asarray(minimize(objective, start, jac=True, bounds=[(0, None)] * k, method="L-BFGS-B", options=settings).x)
