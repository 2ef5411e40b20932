"""Jumps of limited-memory quasi-Newton steps, taken where an energy allows them [LiuNocedal1989].

Where T is a gradient step on F, T x - x is -gamma grad F(x) (projected), so that the last m differences s = dx, y = -d(T x - x)
give an inverse Hessian H by the two-loop recursion, and the jump is x + H (T x - x). It is evaluated; if F there is as low as
it is known to be at T x, and its length at most 100 |x - T x|, it is taken, else the next evaluation is at T x, kept in
memory (docs/theorems.md, P10).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pnp.bounds import Refused
from pnp.guarantees import EnergyDescends, Guarantee
from pnp.points import Point, add, column, combine, inner, select, subtract
from pnp.schemes.jumps import landing, refusals

CURVED = 1e-10
"""A pair is left out where <s, y> is less than this share of <y, y>: F is not convex along s."""


@dataclass(frozen=True)
class Pair:
    """s, y, and (batch,) 1/<s, y> and <s, y>/<y, y>, both 0 where the pair is left out."""

    moved: Point
    turned: Point
    inverse: Tensor
    length: Tensor


@dataclass(frozen=True)
class Tried:
    """What is remembered, image by image.

    Parameters
    ----------
    law : of F.
    plain : T of the last point that was taken, the fallback.
    jumped : (batch,) bool, whether the point under evaluation is a jump; refused : whether F refused it.
    allowed : (batch,) how low F must be at a jump.
    share : (batch,) of the way from T x to the quasi-Newton point that is jumped: a quarter of it after a refusal, twice after
        a jump that was taken, at most 1.
    last : the last point that was taken and its T x - x, or None before the first.
    pairs : oldest first.
    """

    law: EnergyDescends
    plain: Point
    jumped: Tensor
    refused: Tensor
    share: Tensor
    allowed: Tensor | None = None
    last: tuple[Point, Point] | None = None
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class QuasiNewton:
    """The fastest where an energy decides on jumps: 46 evaluations for Anderson's 60 and 263 plain ones on one deblurred crop.

    Parameters
    ----------
    memory : m >= 1, how many differences are kept; each takes the memory of two points.
    """

    memory: int = 5

    def guarantee(self, base: Guarantee) -> Guarantee:
        if self.memory < 1:
            raise Refused(f"QuasiNewton with memory={self.memory} is not covered: memory must be at least 1.")
        if not isinstance(base.watch, EnergyDescends):
            raise Refused(
                "QuasiNewton is not covered: it needs an algorithm that descends on an energy, which decides on its jumps. "
                "Take pnp.Descent(), or pnp.Anderson() as the scheme."
            )
        return replace(base, statement=f"{base.statement}; jumps are accepted where F is as low as a step must bring it")

    def init(self, point: Point, guarantee: Guarantee) -> Tried:
        assert isinstance(guarantee.watch, EnergyDescends)
        nowhere = torch.zeros(len(point[0]), dtype=torch.bool, device=point[0].device)
        return Tried(guarantee.watch, point, nowhere, nowhere, torch.ones_like(nowhere, dtype=point[0].dtype))

    def judge(self, energy: Tensor, allowed: Tensor, memory: Tried) -> tuple[Tensor, Tried]:
        """Whether F refuses the point under evaluation, (batch,), and the memory that knows it."""
        refused, allowed = refusals(memory.jumped, energy, memory.allowed, allowed)
        return refused, replace(memory, allowed=allowed, refused=refused)

    def next(self, k: int, point: Point, image: Point, residual: Tensor, memory: Tried) -> tuple[Point, Tried]:
        refused, step, last, pairs = memory.refused, subtract(image, point), memory.last, memory.pairs
        plain = select(refused, memory.plain, image)
        if last is not None:
            pairs = (*pairs, _pair(subtract(point, last[0]), subtract(last[1], step), ~refused))[-self.memory :]
            last = select(refused, last[0], point), select(refused, last[1], step)
        else:
            last = point, step
        taken = torch.where(memory.jumped, (2 * memory.share).clamp(max=1), memory.share)
        share = torch.where(refused, memory.share / 4, taken)
        away = subtract(_towards(step, pairs), step)
        target, short = landing(add(image, tuple(column(share, t) * t for t in away)), point, residual, memory.law)
        jumped = ~refused & short
        jumped &= torch.stack([pair.inverse > 0 for pair in pairs]).any(0) if pairs else torch.zeros_like(refused)
        chosen = select(jumped, target, plain)
        return chosen, replace(memory, plain=plain, jumped=jumped, share=share, last=last, pairs=pairs)


def _pair(moved: Point, turned: Point, taken: Tensor) -> Pair:
    along, square = inner(moved, turned), inner(turned, turned)
    curved = taken & (along > CURVED * square) & (square > 0)
    nothing = torch.zeros_like(along)
    return Pair(moved, turned, torch.where(curved, 1 / along, nothing), torch.where(curved, along / square, nothing))


def _towards(step: Point, pairs: tuple[Pair, ...]) -> Point:
    """H step, by the two-loop recursion; H_0 = <s, y>/<y, y> of the newest pair that counts."""
    shares = []
    for pair in reversed(pairs):
        share = pair.inverse * inner(pair.moved, step)
        step = _add(step, -share, pair.turned)
        shares.append(share)
    if pairs:
        scale = torch.ones_like(pairs[0].length)
        for pair in pairs:
            scale = torch.where(pair.length > 0, pair.length, scale)
        step = tuple(column(scale.to(t.dtype), t) * t for t in step)
    for pair, share in zip(pairs, reversed(shares), strict=True):
        step = _add(step, share - pair.inverse * inner(pair.turned, step), pair.moved)
    return step


def _add(p: Point, weights: Tensor, q: Point) -> Point:
    return combine(1.0, p, 1.0, tuple(column(weights.to(t.dtype), t) * t for t in q))
