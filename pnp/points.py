"""The variable that a theorem speaks of, as a tuple of tensors with a batch in front: (x,), (t,), (x, u).

Source: a product of Hilbert spaces is one [BauschkeCombettes2017, chapter 2], so that a scheme iterates any variable alike.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Point = tuple[Tensor, ...]


def combine(a: float, p: Point, b: float, q: Point) -> Point:
    """a p + b q."""
    return tuple(a * s + b * t for s, t in zip(p, q, strict=True))


def add(p: Point, q: Point) -> Point:
    """p + q."""
    return tuple(s + t for s, t in zip(p, q, strict=True))


def subtract(p: Point, q: Point) -> Point:
    """p - q."""
    return tuple(s - t for s, t in zip(p, q, strict=True))


def scale(weights: Tensor, p: Point) -> Point:
    """weights[i] times the i-th image of p; weights (batch,)."""
    return tuple(column(weights, t) * t for t in p)


def select(mask: Tensor, p: Point, q: Point) -> Point:
    """The images of p where the mask (batch,) holds, those of q elsewhere."""
    return tuple(torch.where(column(mask, s), s, t) for s, t in zip(p, q, strict=True))


def inner(p: Point, q: Point) -> Tensor:
    """<p, q> of each image, (batch,), summed in double precision."""
    return sum_parts(lambda s, t: (s.flatten(1).double() * t.flatten(1).double()).sum(1), p, q)


def length(p: Point) -> Tensor:
    """|p| of each image in l2, (batch,)."""
    parts = torch.stack([per_image(t) for t in p])
    return torch.linalg.vector_norm(parts, dim=0)


def per_image(x: Tensor) -> Tensor:
    """The l2 norm of each image of a batch, (batch,)."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def column(values: Tensor, like: Tensor) -> Tensor:
    """values (batch,) shaped so that it broadcasts over the images of `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def sum_parts(function: Callable[[Tensor, Tensor], Tensor], p: Point, q: Point) -> Tensor:
    """The sum over the tensors of two points of a function that gives (batch,)."""
    return torch.stack([function(s, t) for s, t in zip(p, q, strict=True)]).sum(0)
