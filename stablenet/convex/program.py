"""Convex programs of two-layer networks as values: data, gates, datafit, penalty and constraint, with a proved lower bound.

Source: [PilanciErgen2020] (ReLU: cones), [Mishkin2022] (gated: none); the bound is docs/theorems.md, X2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from stablenet.convex import cones
from stablenet.convex.datafits import Datafit
from stablenet.convex.duality import fenchel_bound, unit_roundoff
from stablenet.convex.gates import Gates
from stablenet.convex.penalties import GroupNorm
from stablenet.convex.products import Products
from stablenet.rounding import dot_product_margin


class Prox(NamedTuple):
    """A proximal step of the penalty and the constraint, with what its derivative needs.

    variables : (signs, gates, outputs, d).
    nonzero : (k, 3) of the groups that are not zero: sign, gate, output (0 where a group holds all outputs).
    shares : (k,) in (0, 1], by how much each group was shortened.
    multipliers : (k, n) of their projections onto cones; None without cones.
    bounded : whether the bound of the sum raised the threshold.
    """

    variables: Tensor
    nonzero: Tensor
    shares: Tensor
    multipliers: Tensor | None
    bounded: bool


@dataclass(frozen=True)
class Program:
    """min f(A V) + penalty(V) over V (signs, gates, outputs, d), A V = sum_i D_i X (V_0i - V_1i).

    Gated networks have one sign, and a group is all of V_0i. ReLU networks have two and a group for every output, each in its
    cone K_i = {v : (2 D_i - I) X v >= 0}: a neuron feeds one output.

    Parameters
    ----------
    X : (n, d), finite, and y : (n, outputs), of one type and device; -1 and 1 where the datafit wants labels.
    gates : with patterns (gates, n).
    cones : True for ReLU networks, False for gated ones.

    Raises
    ------
    ValueError : shapes, types or labels that do not match, NaN or infinity.
    """

    X: Tensor
    y: Tensor
    gates: Gates
    datafit: Datafit
    penalty: GroupNorm
    cones: bool = False

    def __post_init__(self) -> None:
        X, y = self.X, self.y
        if X.ndim != 2 or y.ndim != 2 or len(X) != len(y) or not X.numel() or not y.numel():
            raise ValueError(
                f"X must be (n, d) and y (n, outputs) with as many rows, got {tuple(X.shape)} and {tuple(y.shape)}"
            )
        if X.dtype != y.dtype or not X.dtype.is_floating_point:
            raise ValueError(f"X and y must be real and of one type, got {X.dtype} and {y.dtype}")
        if not (torch.isfinite(X).all() and torch.isfinite(y).all()):
            raise ValueError("X or y holds NaN or infinity: remove those rows or fill them in")
        if self.gates.patterns.shape[1] != len(X):
            raise ValueError(f"the gates are patterns of {self.gates.patterns.shape[1]} data, X has {len(X)}: take X's own")
        if self.datafit.labels and not bool((y.abs() == 1).all()):
            raise ValueError(f"{type(self.datafit).__name__} needs labels -1 and 1, got others, as {float(y.flatten()[0])}")

    @cached_property
    def products(self) -> Products:
        """The operator without signs."""
        return Products.of(self.X, self.gates.patterns)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(signs, gates, outputs, d) of the variables."""
        return (2 if self.cones else 1, len(self.gates), self.y.shape[1], self.X.shape[1])

    @property
    def groups(self) -> tuple[int, int, int]:
        """(signs, gates, outputs or 1): one length each."""
        return (*self.shape[:2], self.shape[2] if self.cones else 1)

    def zeros(self) -> Tensor:
        """V = 0."""
        return self.X.new_zeros(self.shape)

    def with_weight(self, weight: float) -> Program:
        """The same with another beta, as along a path."""
        return replace(self, penalty=replace(self.penalty, weight=weight))

    def at(self, index: Tensor) -> Program:
        """The same with the gates of some indices (k,) alone."""
        return replace(self, gates=self.gates.at(index))

    def predict(self, V: Tensor) -> Tensor:
        """A V, (n, outputs)."""
        return self.products.forward(V[0] - V[1] if self.cones else V[0])

    def correlations(self, R: Tensor) -> Tensor:
        """A^T R for R (n, outputs), of the variables' shape."""
        C = self.products.adjoint(R)
        return torch.stack([C, -C]) if self.cones else C[None]

    def lengths(self, V: Tensor) -> Tensor:
        """|v_g| of every group, (signs, gates, outputs or 1)."""
        return torch.linalg.vector_norm(V, dim=3) if self.cones else torch.linalg.vector_norm(V, dim=(2, 3))[..., None]

    def objective(self, V: Tensor) -> float:
        """f(A V) + penalty(V), for V in the cones."""
        return float(self.datafit.value(self.predict(V), self.y) + self.penalty.value(self.lengths(V)))

    @property
    def largest_weight(self) -> float:
        """The smallest beta for which V = 0 is known to be optimal."""
        return self.polar(self.datafit.gradient(torch.zeros_like(self.y), self.y))

    def prox(self, W: Tensor, step: float) -> Prox:
        """The proximal map of step times penalty and constraint at W."""
        lengths, multipliers = self.lengths(W), None
        if self.cones:
            near = torch.nonzero(lengths > step * self.penalty.weight)
            s, i, c = near.T
            points, multipliers = cones.project(self.X, self.gates.patterns[i], W[s, i, c])
            W = torch.zeros_like(W)
            W[s, i, c] = points
            lengths = self.lengths(W)
        threshold = self.penalty.threshold(lengths, step)
        shares = (1 - threshold / lengths.clamp_min(torch.finfo(W.dtype).tiny)).clamp_min(0)
        index = torch.nonzero(shares > 0)
        if multipliers is not None:
            multipliers = multipliers[shares[tuple(near.T)] > 0]
        bounded = self.penalty.is_bound(lengths, step)
        V = W * shares[..., None]
        if bounded and self.penalty.most is not None:  # the threshold is a difference of long lengths
            V = V * min(1.0, self.penalty.most / float(self.lengths(V).sum()))
        return Prox(V, index, shares[tuple(index.T)], multipliers, bounded)

    def polars(self, R: Tensor, *, most: float = 0.0) -> Tensor:
        """Upper bounds of sup <A v, -R>, |v| <= 1, v in its cone, rounding included; one a group.

        Cones in which even the length of A^T R is at most `most` are not looked at: their bound is that length.
        """
        U = -self.correlations(R)
        lengths = self.lengths(U)
        slack = dot_product_margin(sum(self.X.shape) + 8, unit_roundoff(U))
        scale = float(torch.linalg.vector_norm(self.X))
        error = slack * scale * float(torch.linalg.vector_norm(R))
        if self.cones:
            s, i, c = torch.nonzero(lengths > most).T
            points, multipliers = cones.project(self.X, self.gates.patterns[i], U[s, i, c])
            weights = torch.linalg.vector_norm(multipliers, dim=1)
            lengths[s, i, c] = torch.linalg.vector_norm(points, dim=1) + slack * scale * weights
        return lengths * (1 + slack) + error

    def polar(self, R: Tensor, *, most: float = 0.0) -> float:
        """The largest of `polars`."""
        return float(self.polars(R, most=most).max())

    def lower_bound(self, R: Tensor) -> float:
        """A number that no V of this program's gates goes below, from any R (n, outputs); best at a gradient of f (X2)."""
        R = self.datafit.into_domain(R, self.y)
        return fenchel_bound(self.datafit, self.penalty, self.y, R, self.polar(R, most=self.penalty.weight))


@dataclass(frozen=True)
class Optimum:
    """What a solver found.

    Parameters
    ----------
    variables : V of the program's shape, feasible.
    objective : the program's value there: an upper bound of the optimum.
    lower_bound : a proved lower bound over all networks of this kind; None where not all cells were priced.
    certified : whether it is known.
    program_gap : objective minus a proved lower bound over this program's gates alone, known always.
    """

    variables: Tensor
    objective: float
    lower_bound: float | None
    certified: bool
    program_gap: float

    @staticmethod
    def of(program: Program, variables: Tensor, objective: float, bound: float) -> Optimum:
        """From a lower bound over the program's gates: over all networks if they are gated, or have all cells."""
        certified = not program.cones or program.gates.complete
        return Optimum(variables, objective, bound if certified else None, certified, max(objective - bound, 0.0))

    @property
    def gap(self) -> float | None:
        """objective - lower_bound, at least 0; None where the bound is not known."""
        return None if self.lower_bound is None else max(self.objective - self.lower_bound, 0.0)

    @property
    def relative_gap(self) -> float | None:
        """gap / |objective|; None where it is not known."""
        gap = self.gap
        return None if gap is None else gap / max(abs(self.objective), math.ulp(1.0))
