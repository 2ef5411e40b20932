"""Datafits f(Z), each a weight times a sum over entries: value, gradient, conjugate, and the step that dual solvers take.

Source: the conjugates are elementary [BoydVandenberghe2004, chapter 3]; the envelope of a datafit whose conjugate is not
smooth is that of the proximal point method [Rockafellar1976].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class DualStep(NamedTuple):
    """sup_z <r, z> - f(z) - |z - z_0|^2/(2 tau): its value, the maximizer z, and dz/dr, both of r's shape."""

    value: Tensor
    point: Tensor
    slope: Tensor


@runtime_checkable
class Datafit(Protocol):
    """A convex f of predictions Z (n, outputs) and targets y of the same shape.

    weight : in front of the sum.
    curvature : of a gradient that is Lipschitz, its constant; None where f has no gradient.
    labels : whether y holds labels -1 and 1.
    strongly_dual : whether f* is strictly convex and smooth inside its domain, so that `dual_step` needs no tau.
    """

    @property
    def weight(self) -> float: ...
    @property
    def curvature(self) -> float | None: ...
    @property
    def labels(self) -> bool: ...
    @property
    def strongly_dual(self) -> bool: ...

    def value(self, Z: Tensor, y: Tensor) -> Tensor:
        """f(Z), without a shape."""
        ...

    def gradient(self, Z: Tensor, y: Tensor) -> Tensor:
        """A subgradient of f at Z, the gradient where there is one; of Z's shape."""
        ...

    def conjugate_terms(self, R: Tensor, y: Tensor) -> Tensor:
        """The terms whose sum is f*(R) for R in its domain, of R's shape."""
        ...

    def into_domain(self, R: Tensor, y: Tensor) -> Tensor:
        """The nearest R on which f* is finite."""
        ...

    def dual_step(self, R: Tensor, y: Tensor, start: Tensor, tau: float) -> DualStep:
        """The step described in `DualStep`, with z_0 = start; value is infinity outside the domain."""
        ...


@dataclass(frozen=True)
class Squared:
    """weight/2 sum (z - y)^2; weight > 0: 1 for sums, 1/n for means."""

    weight: float = 1.0
    labels = False
    strongly_dual = True

    def __post_init__(self) -> None:
        _require_weight(self, self.weight)

    @property
    def curvature(self) -> float:
        return self.weight

    def value(self, Z: Tensor, y: Tensor) -> Tensor:
        return self.weight / 2 * (Z - y).square().sum()

    def gradient(self, Z: Tensor, y: Tensor) -> Tensor:
        return self.weight * (Z - y)

    def conjugate_terms(self, R: Tensor, y: Tensor) -> Tensor:
        return R * (R / (2 * self.weight) + y)

    def into_domain(self, R: Tensor, y: Tensor) -> Tensor:
        return R

    def dual_step(self, R: Tensor, y: Tensor, start: Tensor, tau: float) -> DualStep:
        slope = torch.full_like(R, 1 / self.weight)
        return DualStep(self.conjugate_terms(R, y).sum(), R / self.weight + y, slope)


@dataclass(frozen=True)
class Logistic:
    """weight sum log(1 + exp(-y z)) for labels y in {-1, 1}; weight > 0."""

    weight: float = 1.0
    labels = True
    strongly_dual = True

    def __post_init__(self) -> None:
        _require_weight(self, self.weight)

    @property
    def curvature(self) -> float:
        return self.weight / 4

    def value(self, Z: Tensor, y: Tensor) -> Tensor:
        return self.weight * torch.nn.functional.softplus(-y * Z, threshold=700).sum()

    def gradient(self, Z: Tensor, y: Tensor) -> Tensor:
        return -self.weight * y * torch.sigmoid(-y * Z)

    def conjugate_terms(self, R: Tensor, y: Tensor) -> Tensor:
        p = -y * R / self.weight
        return self.weight * (torch.special.xlogy(p, p) + torch.special.xlogy(1 - p, 1 - p))

    def into_domain(self, R: Tensor, y: Tensor) -> Tensor:
        return -y * (-y * R).clamp(0, self.weight)

    def dual_step(self, R: Tensor, y: Tensor, start: Tensor, tau: float) -> DualStep:
        p = -y * R / self.weight
        if not bool(((p > 0) & (p < 1)).all()):
            return DualStep(R.new_tensor(math.inf), R, R)
        return DualStep(self.conjugate_terms(R, y).sum(), -y * torch.logit(p), 1 / (self.weight * p * (1 - p)))


@dataclass(frozen=True)
class SquaredHinge:
    """weight/2 sum max(0, 1 - y z)^2 for labels y in {-1, 1}; weight > 0."""

    weight: float = 1.0
    labels = True
    strongly_dual = False

    def __post_init__(self) -> None:
        _require_weight(self, self.weight)

    @property
    def curvature(self) -> float:
        return self.weight

    def value(self, Z: Tensor, y: Tensor) -> Tensor:
        return self.weight / 2 * (1 - y * Z).clamp_min(0).square().sum()

    def gradient(self, Z: Tensor, y: Tensor) -> Tensor:
        return -self.weight * y * (1 - y * Z).clamp_min(0)

    def conjugate_terms(self, R: Tensor, y: Tensor) -> Tensor:
        return R * (R / (2 * self.weight) + y)

    def into_domain(self, R: Tensor, y: Tensor) -> Tensor:
        return -y * (-y * R).clamp_min(0)

    def dual_step(self, R: Tensor, y: Tensor, start: Tensor, tau: float) -> DualStep:
        t, step = y * (start + tau * R), tau * self.weight
        z = y * torch.where(t >= 1, t, (t + step) / (1 + step))
        slope = torch.where(t >= 1, torch.full_like(t, tau), tau / (1 + step))
        return _envelope(self, R, y, start, tau, z, slope)


@dataclass(frozen=True)
class Hinge:
    """weight sum max(0, 1 - y z) for labels y in {-1, 1}; weight > 0. It has no gradient, so not every solver takes it."""

    weight: float = 1.0
    labels = True
    strongly_dual = False
    curvature = None

    def __post_init__(self) -> None:
        _require_weight(self, self.weight)

    def value(self, Z: Tensor, y: Tensor) -> Tensor:
        return self.weight * (1 - y * Z).clamp_min(0).sum()

    def gradient(self, Z: Tensor, y: Tensor) -> Tensor:
        return -self.weight * y * (y * Z < 1).to(Z.dtype)

    def conjugate_terms(self, R: Tensor, y: Tensor) -> Tensor:
        return R * y

    def into_domain(self, R: Tensor, y: Tensor) -> Tensor:
        return -y * (-y * R).clamp(0, self.weight)

    def dual_step(self, R: Tensor, y: Tensor, start: Tensor, tau: float) -> DualStep:
        t, step = y * (start + tau * R), tau * self.weight
        z = y * torch.where(t >= 1, t, torch.minimum(t + step, torch.ones_like(t)))
        slope = tau * ((t >= 1) | (t + step <= 1)).to(t.dtype)
        return _envelope(self, R, y, start, tau, z, slope)


def _envelope(datafit: Datafit, R: Tensor, y: Tensor, start: Tensor, tau: float, z: Tensor, slope: Tensor) -> DualStep:
    value = (R * z).sum() - datafit.value(z, y) - (z - start).square().sum() / (2 * tau)
    return DualStep(value, z, slope)


def _require_weight(datafit: object, weight: float) -> None:
    if not (weight > 0 and math.isfinite(weight)):
        raise ValueError(f"{type(datafit).__name__} needs a finite weight > 0, got {weight}")
