"""Laws that the iterates of an averaged map cannot break, whatever the data: they are watched while it runs.

Sources: |x_k - T x_k| never increases [BauschkeCombettes2017, theorem 5.15], also with relaxed steps; by definition an
alpha-averaged T has |Tx - Ty|^2 + (1 - alpha)/alpha |(I-T)x - (I-T)y|^2 <= |x - y|^2 for any two points (docs/theorems.md,
P9); an energy that a step lowers never rises (P10). An evaluation with an error e may miss any by e, which the loop adds, as it
adds the rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

ROUNDING = 16
"""Units in the last place by which an energy may be off that is summed in double precision."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of T at x_k, reduced to the numbers that laws speak of, each (batch,), in the algorithm's norm.

    Parameters
    ----------
    residual : |x_k - T x_k|.
    error : a bound of the error of T x_k.
    ceiling : what the law allowed here, errors included.
    energy : F(x_k) where the algorithm descends on an energy, in double precision, else None; allowed : what it is at most
        at T x_k, in exact arithmetic.
    refused : (batch,) bool, x_k was tried by the scheme and is not taken; None where all are taken.
    apart : |x_k - x_(k-1)|; images_apart : |T x_k - T x_(k-1)|; residuals_apart : |(I-T) x_k - (I-T) x_(k-1)|. Infinity
        and zeros at first, and where the watch does not ask for pairs.
    """

    residual: Tensor
    error: Tensor
    ceiling: Tensor
    apart: Tensor
    images_apart: Tensor
    residuals_apart: Tensor
    energy: Tensor | None = None
    allowed: Tensor | None = None
    refused: Tensor | None = None


class Watch(Protocol):
    """What is observed of an evaluation, and what it may not exceed."""

    @property
    def pairs(self) -> bool:
        """Whether the law compares an evaluation with the one before."""
        ...

    @property
    def law(self) -> str:
        """In words; {residual} stands for the residual."""
        ...

    @property
    def broken(self) -> str:
        """What happened if the law is broken; {image} and {ceiling}, {observed} are filled in."""
        ...

    def observed(self, now: Evaluation) -> Tensor: ...

    def ceiling(self, history: Sequence[Evaluation], now: Evaluation) -> Tensor: ...

    def residual_bound(self, averagedness: float | None, distance: float, iteration: int) -> float:
        """A bound of the k-th residual from d0, the distance of the start to a fixed point; infinity if there is none."""
        ...


@dataclass(frozen=True)
class Nonincreasing:
    """The residual of x + lambda (Tx - x), lambda = factor < 1/alpha, never increases."""

    factor: float = 1.0
    pairs = False
    law = "{residual} never increases"
    broken = "the fixed-point residual of image {image} rose from {ceiling:.6g} to {observed:.6g}"

    def observed(self, now: Evaluation) -> Tensor:
        return now.residual

    def ceiling(self, history: Sequence[Evaluation], now: Evaluation) -> Tensor:
        if not history:
            return torch.full_like(now.residual, math.inf)
        return torch.minimum(history[-1].ceiling, history[-1].residual) + history[-1].error + now.error

    def residual_bound(self, averagedness: float | None, distance: float, iteration: int) -> float:
        """sqrt(alpha/(lambda (1 - lambda alpha))) d0/sqrt(k + 1)."""
        if averagedness is None or averagedness * self.factor >= 1:
            return math.inf
        constant = averagedness / (self.factor * (1 - self.factor * averagedness))
        return math.sqrt(constant) * distance / math.sqrt(iteration + 1)


@dataclass(frozen=True)
class Averaged:
    """Any two consecutive evaluations obey the inequality of an alpha-averaged map, alpha = averagedness.

    Parameters
    ----------
    averagedness : alpha.
    rate : c where the k-th residual is at most c d0/(k+1), or None where no rate is proved.
    """

    averagedness: float
    rate: float | None = None
    pairs = True
    law = "no two iterates move apart, though {residual} may rise in between"
    broken = "two iterates of image {image} moved apart from {ceiling:.6g} to {observed:.6g}"

    @property
    def weight(self) -> float:
        """sqrt((1 - alpha)/alpha), at most 1."""
        return math.sqrt(min(1.0, (1 - self.averagedness) / max(self.averagedness, 0.5)))

    def observed(self, now: Evaluation) -> Tensor:
        return torch.hypot(now.images_apart, self.weight * now.residuals_apart)

    def ceiling(self, history: Sequence[Evaluation], now: Evaluation) -> Tensor:
        if not history:
            return now.apart
        return now.apart + (1 + self.weight) * (history[-1].error + now.error)

    def residual_bound(self, averagedness: float | None, distance: float, iteration: int) -> float:
        return math.inf if self.rate is None else self.rate * distance / (iteration + 1)


@dataclass(frozen=True)
class EnergyDescends:
    """F(x_j) <= F(x_k) - c r_k^2, x_j the point taken after x_k: T x_k, or one that the scheme chose because F is as low there.

    Where the algorithm knows a sharper bound of F(T x_k), that is the law. An error e of T x_k raises F by at most
    s (r + e) e + u e^2/2, s r a bound of |grad F(T x_k)| and u of its slope.

    Parameters
    ----------
    decrease : c > 0.
    steepness, curvature : s and u.
    box : whether F is infinite outside of the box [0, 1], so that a point chosen in place of T x must lie in it.
    """

    decrease: float
    steepness: float = 0.0
    curvature: float = 0.0
    box: bool = False
    pairs = False
    broken = "F of image {image} is {observed:.9g} where at most {ceiling:.9g} is possible"

    @property
    def law(self) -> str:
        """In words; {residual} stands for the residual."""
        return f"F never rises: a step lowers it by at least {self.decrease:.3g} {{residual}}^2"

    def observed(self, now: Evaluation) -> Tensor:
        assert now.energy is not None
        return now.energy if now.refused is None else torch.where(now.refused, -math.inf, now.energy)

    def ceiling(self, history: Sequence[Evaluation], now: Evaluation) -> Tensor:
        """What F may be now, by the last point that was taken; the ceiling of a refused one is kept for the next."""
        assert now.energy is not None
        if not history:
            return torch.full_like(now.energy, math.inf)
        before = history[-1]
        assert before.energy is not None and before.allowed is not None
        residual, error = before.residual.double(), before.error.double()
        slack = (self.steepness + 2 * self.decrease) * (residual + error) * error + self.curvature * error**2 / 2
        rounding = ROUNDING * torch.finfo(before.residual.dtype).eps * before.energy.abs()
        allowed = before.allowed + slack + rounding
        return allowed if before.refused is None else torch.where(before.refused, before.ceiling, allowed)

    def allowed(self, energy: Tensor, residual: Tensor) -> Tensor:
        """F(x) - c r^2, (batch,): how low F is at T x."""
        return energy - self.decrease * residual.double() ** 2

    def residual_bound(self, averagedness: float | None, distance: float, iteration: int) -> float:
        return math.inf

    def least_residual_bound(self, energy: float, iteration: int) -> float:
        """sqrt(F(x_0)/(c (k+1))) >= min over j <= k of r_j, where F >= 0."""
        return math.sqrt(energy / (self.decrease * (iteration + 1)))


@dataclass(frozen=True)
class Unwatched:
    """Nothing is known that could be watched."""

    pairs = False
    law = "nothing is watched"
    broken = ""

    def observed(self, now: Evaluation) -> Tensor:
        return torch.zeros_like(now.residual)

    def ceiling(self, history: Sequence[Evaluation], now: Evaluation) -> Tensor:
        return torch.full_like(now.residual, math.inf)

    def residual_bound(self, averagedness: float | None, distance: float, iteration: int) -> float:
        return math.inf
