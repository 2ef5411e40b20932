"""A gated network as multiple-kernel learning: masked kernels of new data, tangent weights, a polished fit, an error bound.

Source: [Dwaraknath2023]; docs/theorems.md, X5, X7 and X8. f = sum_i D_i X v_i is kernel ridge regression with
K_eta(z, x) = sum_i eta_i 1[g_i . z >= 0] 1[g_i . x >= 0] z . x at eta_i = |v_i|.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stablenet.convex.gates import Gates
from stablenet.convex.program import Optimum, Program
from stablenet.convex.solvers import Newton, Reweighting, require, run
from stablenet.convex.solvers.reweighting import masked_kernel
from stablenet.rounding import UNIT_ROUNDOFF, dot_product_margin
from stablenet.spectral.bounds import matrix_upper_bound

DRAWS = 4096
"""Vectors drawn at once."""


def cross_kernel(Z: Tensor, X: Tensor, gates: Gates, weights: Tensor) -> Tensor:
    """K_eta(z, x), (m, n), of Z (m, d) and the gates' own data X (n, d), weights eta (gates,).

    Raises
    ------
    ValueError : gates without vectors, so that new data cannot be gated.
    """
    if gates.vectors is None:
        raise ValueError("these gates have no vectors, so new data cannot be gated: take gates.sample(X, number)")
    on = (Z @ gates.vectors.T >= 0).to(X.dtype)
    return (Z @ X.T) * ((on * weights) @ gates.patterns.to(X.dtype))


def tangent_weights(X: Tensor, gates: Gates, *, draws: int | None = None, generator: torch.Generator | None = None) -> Tensor:
    """eta_i = P[the pattern of X g is that of gate i], g ~ N(0, I), (gates,): with all cells K_eta is `kernels.gated_ntk`.

    Parameters
    ----------
    draws : None for the closed form, the cells' angles over 2 pi, in one or two dimensions; else so many draws, of which a
        cell that none of them hits counts as half a one, since reweighting needs positive weights.

    Raises
    ------
    ValueError : more than two dimensions without draws.
    """
    if draws is None:
        return _angles(X, gates.patterns) / (2 * math.pi)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    place = {key.tobytes(): k for k, key in enumerate(np.packbits(gates.patterns.cpu().numpy(), axis=1))}
    counts = np.zeros(len(gates))
    for start in range(0, draws, DRAWS):
        g = torch.randn(min(DRAWS, draws - start), X.shape[1], generator=generator, dtype=X.dtype)
        drawn = np.packbits((g.to(X.device) @ X.T >= 0).cpu().numpy(), axis=1)
        hits = [place[key] for key in (row.tobytes() for row in drawn) if key in place]
        counts += np.bincount(hits, minlength=len(gates))
    return torch.from_numpy(np.maximum(counts, 0.5) / draws).to(X)


def _angles(X: Tensor, patterns: Tensor) -> Tensor:
    """Of cells in the plane: pi less the angle between the outermost of their rows, turned inward."""
    if X.shape[1] == 1:
        return X.new_full((len(patterns),), math.pi)
    if X.shape[1] != 2:
        raise ValueError(f"in {X.shape[1]} dimensions the weights have no closed form: give draws, as draws=100_000")
    rows = X[(X != 0).any(1)]
    rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    B = torch.where(patterns[:, (X != 0).any(1), None], rows, -rows)
    middle = B.sum(1, keepdim=True)
    turned = torch.atan2(middle[..., 0] * B[..., 1] - middle[..., 1] * B[..., 0], (middle * B).sum(2))
    return (math.pi - (turned.amax(1) - turned.amin(1))).clamp_min(0)


@dataclass(frozen=True)
class KernelRidge:
    """f(z) = K_eta(z, X) a.

    Parameters
    ----------
    X : (n, d); gates : of X; weights : eta (gates,); coefficients : a (n, outputs).
    """

    X: Tensor
    gates: Gates
    weights: Tensor
    coefficients: Tensor

    def predict(self, Z: Tensor) -> Tensor:
        """(m, d) to (m, outputs)."""
        return cross_kernel(Z, self.X, self.gates, self.weights) @ self.coefficients


def kernel_ridge(program: Program, weights: Tensor) -> KernelRidge:
    """Ridge regression with K_eta: a = (K_eta + beta I)^(-1) y, beta that of a loss |f(X) - y|^2/2.

    Raises
    ------
    ValueError : a program that is not squared and gated, without a bound of the sum, or weights that are negative.
    """
    require(Reweighting(), program)
    if tuple(weights.shape) != (len(program.gates),) or not bool((weights >= 0).all()):
        raise ValueError(f"{len(program.gates)} gates need as many weights >= 0, got {tuple(weights.shape)}")
    K = masked_kernel(program.X, program.gates.patterns, weights)
    ridge = program.penalty.weight / program.datafit.weight
    factor = torch.linalg.cholesky(K + ridge * torch.eye(len(K), dtype=K.dtype, device=K.device))
    return KernelRidge(program.X, program.gates, weights, torch.cholesky_solve(program.y, factor))


def learn_kernel(
    program: Program, *, weights: Tensor | None = None, iterations: int = 10, tolerance: float = 1e-8
) -> tuple[KernelRidge, Optimum]:
    """The best kernel of the gates, by reweighting from some weights and Newton's method from there.

    Parameters
    ----------
    weights : the first eta (gates,), positive, as `tangent_weights`; None for equal ones.
    iterations : of reweighting.
    tolerance : of the relative gap that Newton's method ends with.

    Returns
    -------
    The regression with eta_i = |v_i|, and the optimum v of the program, which predicts the same.

    Raises
    ------
    ValueError : a program that is not squared and gated, without a bound of the sum, or weights that do not fit.
    """
    begun = run(program, Reweighting(tolerance, iterations, weights))
    optimum = run(program, Newton(tolerance), start=begun.variables)
    return kernel_ridge(program, program.lengths(optimum.variables)[0, :, 0]), optimum


def gaussian_noise_weight(X: Tensor, gates: int, deviation: float, *, outputs: int = 1, confidence: float = 0.95) -> float:
    """A beta that max_i |X^T D_i e| exceeds with probability at most 1 - confidence, e (n, outputs) of this deviation (X8).

    deviation (sqrt(outputs) |X|_F + |X|_2 sqrt(2 log(gates/(1 - confidence)))), rounded up.

    Raises
    ------
    ValueError : a number out of range.
    """
    if gates < 1 or outputs < 1 or not deviation > 0 or not 0 < confidence < 1:
        raise ValueError(
            f"gates and outputs must be at least 1, deviation > 0 and confidence in (0, 1), got {gates}, {outputs}, "
            f"{deviation}, {confidence}"
        )
    values = X.detach().double()
    frobenius = float(torch.linalg.vector_norm(values)) * (1 + 2 * dot_product_margin(values.numel() + 8, UNIT_ROUNDOFF))
    spectral = min(frobenius, matrix_upper_bound(values))
    deviations = math.sqrt(2 * math.log(gates / (1 - confidence)))
    return deviation * (math.sqrt(outputs) * frobenius + spectral * deviations) * (1 + 64 * UNIT_ROUNDOFF)


def prediction_error_bound(beta: float, total: float, *, noise: float, gap: float = 0.0) -> float | None:
    """|A v - A v*|^2 <= 4 beta sum_i |v*_i| + 2 gap for y = A v* + e, where beta >= noise >= max_i |X^T D_i e|; None where not.

    Parameters
    ----------
    beta : of the program with loss |A v - y|^2/2.
    total : sum_i |v*_i| of the truth.
    noise : max_i |X^T D_i e|, as `Program.polar(e)`, or a `gaussian_noise_weight`.
    gap : of v, as an optimum's `program_gap`.
    """
    if not (beta > 0 and total >= 0 and noise >= 0 and gap >= 0):
        raise ValueError(f"beta > 0, total, noise and gap >= 0 are needed, got {beta}, {total}, {noise}, {gap}")
    return (4 * beta * total + 2 * gap) * (1 + 8 * UNIT_ROUNDOFF) if beta >= noise else None
