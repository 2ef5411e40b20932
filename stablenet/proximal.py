"""Proximal maps of step one, each with its function: h = prox_phi, h(v) = argmin |y - v|^2/2 + phi(y).

Source: [Moreau1965]; that c h is a proximal map again is docs/theorems.md, K1.
Values are frozen; features lie along `axis`, and maps of groups take `group` neighbors along it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional


@runtime_checkable
class Proximal(Protocol):
    """phi and its proximal map h, with phi(0) = 0 = min phi.

    convex : whether phi is.
    """

    @property
    def convex(self) -> bool: ...

    def value(self, y: Tensor, axis: int = -1) -> Tensor:
        """phi(y) summed over the axis, infinity outside its domain; of y's shape without the axis."""
        ...

    def prox(self, v: Tensor, axis: int = -1) -> Tensor:
        """h(v), of v's shape."""
        ...


@runtime_checkable
class Homogeneous(Proximal, Protocol):
    """phi(t y) = t phi(y) for t > 0: phi* is the indicator of {polar <= 1}."""

    def polar(self, w: Tensor, axis: int = -1) -> Tensor:
        """max <w, y> over phi(y) <= 1, at least 0; of w's shape without the axis."""
        ...


@dataclass(frozen=True)
class Nonnegative:
    """phi = 0 for y >= 0, else infinity; h(v) = max(v, 0), the ReLU."""

    convex = True

    def value(self, y: Tensor, axis: int = -1) -> Tensor:
        return _outside((y < 0).any(axis), y)

    def prox(self, v: Tensor, axis: int = -1) -> Tensor:
        return functional.relu(v)


@dataclass(frozen=True)
class ShiftedNonnegative:
    """phi = weight sum y for y >= 0, else infinity; h(v) = max(v - weight, 0); weight > 0."""

    weight: float
    convex = True

    def __post_init__(self) -> None:
        _require(self, self.weight > 0, "weight > 0; without one take Nonnegative()")

    def value(self, y: Tensor, axis: int = -1) -> Tensor:
        return _outside((y < 0).any(axis), y) + self.weight * y.sum(axis)

    def prox(self, v: Tensor, axis: int = -1) -> Tensor:
        return functional.relu(v - self.weight)

    def polar(self, w: Tensor, axis: int = -1) -> Tensor:
        return w.amax(axis).clamp_min(0) / self.weight


@dataclass(frozen=True)
class SoftThreshold:
    """phi = weight |y|_1; h(v) = sign(v) max(|v| - weight, 0); weight > 0."""

    weight: float
    convex = True

    def __post_init__(self) -> None:
        _require(self, self.weight > 0, "weight > 0")

    def value(self, y: Tensor, axis: int = -1) -> Tensor:
        return self.weight * y.abs().sum(axis)

    def prox(self, v: Tensor, axis: int = -1) -> Tensor:
        return functional.softshrink(v, self.weight)

    def polar(self, w: Tensor, axis: int = -1) -> Tensor:
        return w.abs().amax(axis) / self.weight


@dataclass(frozen=True)
class LeakyNonnegative:
    """phi = (1/slope - 1)/2 |min(y, 0)|^2; h(v) = max(v, slope v), the leaky ReLU; 0 < slope <= 1."""

    slope: float
    convex = True

    def __post_init__(self) -> None:
        _require(self, 0 < self.slope <= 1, "0 < slope <= 1; for 0 take Nonnegative()")

    def value(self, y: Tensor, axis: int = -1) -> Tensor:
        return (1 / self.slope - 1) / 2 * y.clamp_max(0).square().sum(axis)

    def prox(self, v: Tensor, axis: int = -1) -> Tensor:
        return functional.leaky_relu(v, self.slope)


@dataclass(frozen=True)
class GroupSoftThreshold:
    """phi = weight sum over groups of |y_g|_2; h(v)_g = max(1 - weight/|v_g|, 0) v_g; weight > 0, group >= 1."""

    weight: float
    group: int
    convex = True

    def __post_init__(self) -> None:
        _require(self, self.weight > 0, "weight > 0")
        _require(self, _count(self.group) >= 1, "an integer group >= 1")

    def value(self, y: Tensor, axis: int = -1) -> Tensor:
        return self.weight * self._norms(y, axis)[0].sum(axis)

    def prox(self, v: Tensor, axis: int = -1) -> Tensor:
        norms, axis = self._norms(v, axis)
        share = (norms - self.weight).clamp_min(0) / norms.clamp_min(self.weight)
        return v * share.repeat_interleave(self.group, axis)

    def polar(self, w: Tensor, axis: int = -1) -> Tensor:
        return self._norms(w, axis)[0].amax(axis) / self.weight

    def _norms(self, v: Tensor, axis: int) -> tuple[Tensor, int]:
        groups, inner = _groups(self, v, axis, self.group)
        return torch.linalg.vector_norm(groups, dim=inner), inner - 1


@dataclass(frozen=True)
class HardThreshold:
    """phi = weight times the number of nonzero entries; h(v) = v where |v| > sqrt(2 weight), else 0; weight > 0."""

    weight: float
    convex = False

    def __post_init__(self) -> None:
        _require(self, self.weight > 0, "weight > 0")

    def value(self, y: Tensor, axis: int = -1) -> Tensor:
        return self.weight * (y != 0).sum(axis).to(y.dtype)

    def prox(self, v: Tensor, axis: int = -1) -> Tensor:
        return functional.hardshrink(v, math.sqrt(2 * self.weight))


@dataclass(frozen=True)
class GroupMaximum:
    """phi = 0 where a group has at most one nonzero entry, else infinity; h keeps the largest |v| of each group; group >= 2."""

    group: int
    convex = False

    def __post_init__(self) -> None:
        _require(self, _count(self.group) >= 2, "an integer group >= 2")

    def value(self, y: Tensor, axis: int = -1) -> Tensor:
        groups, inner = _groups(self, y, axis, self.group)
        return _outside(((groups != 0).sum(inner) > 1).any(inner - 1), y)

    def prox(self, v: Tensor, axis: int = -1) -> Tensor:
        groups, inner = _groups(self, v, axis, self.group)
        largest = groups.abs().argmax(inner, keepdim=True)
        return torch.zeros_like(groups).scatter(inner, largest, groups.gather(inner, largest)).flatten(inner - 1, inner)


@dataclass(frozen=True)
class Scaled:
    """c h for 0 < c < 1, the proximal map of c phi(y/c) + (1/c - 1) |y|^2/2: a weight decay (docs/theorems.md, K1)."""

    inner: Proximal
    factor: float

    def __post_init__(self) -> None:
        _require(self, 0 < self.factor < 1, "0 < factor < 1")

    @property
    def convex(self) -> bool:
        return self.inner.convex

    def value(self, y: Tensor, axis: int = -1) -> Tensor:
        c = self.factor
        return c * self.inner.value(y / c, axis) + (1 / c - 1) / 2 * y.square().sum(axis)

    def prox(self, v: Tensor, axis: int = -1) -> Tensor:
        return self.factor * self.inner.prox(v, axis)


def _require(prox: object, met: bool, needed: str) -> None:
    """Refuse parameters out of range, and those that are no finite numbers."""
    values = [getattr(prox, f.name) for f in fields(prox) if f.name != "inner"]  # type: ignore[arg-type]
    if not met or not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        raise ValueError(f"{prox!r} is no proximal map: it needs {needed}")


def _count(value: object) -> int:
    return value if type(value) is int else 0


def _outside(violated: Tensor, y: Tensor) -> Tensor:
    """The value of an indicator."""
    return torch.where(violated, torch.inf, 0.0).to(y.dtype)


def _groups(prox: object, v: Tensor, axis: int, group: int) -> tuple[Tensor, int]:
    """v with its axis split into groups of neighbors, and the axis within a group."""
    axis %= v.ndim
    if v.shape[axis] % group:
        raise ValueError(f"{prox!r} needs a number of features that {group} divides, got {v.shape[axis]}")
    return v.unflatten(axis, (-1, group)), axis + 1
