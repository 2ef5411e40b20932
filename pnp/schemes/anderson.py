"""Anderson acceleration of type II under a safeguard that keeps every averaged map convergent [Zhang2020; WalkerNi2011].

With residuals g = T x - x, the last m differences dx, dg and gamma = argmin |g - dg gamma|, the jump is T x - (dx + dg) gamma.
It is evaluated; if its residual is at most c r_0 (n+1)^(-1-eps), n the jumps accepted so far, and its length at most LENGTH
times as much, it is accepted, else the next evaluation is at T x, kept in memory. Accepted jumps have summable lengths, so
that the iteration is one of Krasnoselskii and Mann with summable errors (docs/theorems.md, P8). Where T descends on an energy,
F, it decides: a jump of at most LENGTH |x - T x| is accepted if F there is as low as it is known to be at T x (P10).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pnp.bounds import Refused
from pnp.guarantees import Averaged, EnergyDescends, Guarantee
from pnp.points import Point, add, column, length, select, subtract
from pnp.schemes.jumps import LENGTH, landing, refusals

REGULARIZATION = 1e-6


@dataclass(frozen=True)
class Recent:
    """What Anderson remembers, image by image.

    Parameters
    ----------
    jumped : (batch,) bool, whether the point under evaluation is a jump; jump_length : how far it is from `plain`.
    accepted : (batch,) jumps accepted so far.
    first : (batch,) r_0.
    plain : T of the last accepted point, the fallback.
    last : the last accepted point and its g, or None before the first.
    differences : pairs (dx, dg), oldest first; zeros where an image has forgotten.
    descends : the law of F, where F decides; allowed : (batch,) how low it must be at a jump; refused : whether it is not.
    """

    jumped: Tensor
    jump_length: Tensor
    accepted: Tensor
    first: Tensor
    plain: Point
    last: tuple[Point, Point] | None = None
    differences: tuple[tuple[Point, Point], ...] = ()
    descends: EnergyDescends | None = None
    allowed: Tensor | None = None
    refused: Tensor | None = None


@dataclass(frozen=True)
class Anderson:
    """Extrapolation from the last few steps, in 0.4 to 0.25 of the plain evaluations on deblurring (benchmarks/schemes.py).

    Parameters
    ----------
    memory : m >= 1, how many differences are kept; each takes the memory of two points.
    budget : c > 0 and decay : eps > 0 of the safeguard.
    """

    memory: int = 5
    budget: float = 2.0
    decay: float = 0.1

    def guarantee(self, base: Guarantee) -> Guarantee:
        if self.memory < 1 or not self.budget > 0 or not self.decay > 0:
            raise Refused(
                f"Anderson with memory={self.memory}, budget={self.budget:g}, decay={self.decay:g} is not covered: memory must "
                "be at least 1, budget and decay positive."
            )
        if isinstance(base.watch, EnergyDescends):
            return replace(base, statement=f"{base.statement}; jumps are accepted where F is as low as a step must bring it")
        if base.averagedness is None or base.averagedness >= 1:
            raise Refused("Anderson is not covered: it needs an averaged iteration map to fall back to.")
        statement = f"{base.statement}; jumps are accepted while r_k <= {self.budget:g} r_0 (n + 1)^(-{1 + self.decay:g})"
        return replace(base, source=f"{base.source}; Zhang2020", statement=statement, watch=Averaged(base.averagedness))

    def init(self, point: Point, guarantee: Guarantee) -> Recent:
        zeros = point[0].new_zeros(len(point[0]))
        descends = guarantee.watch if isinstance(guarantee.watch, EnergyDescends) else None
        return Recent(zeros > 0, zeros, zeros, zeros, point, descends=descends)

    def judge(self, energy: Tensor, allowed: Tensor, memory: Recent) -> tuple[Tensor, Recent]:
        """Whether F refuses the point under evaluation, (batch,), and the memory that knows it."""
        refused, allowed = refusals(memory.jumped, energy, memory.allowed, allowed)
        return refused, replace(memory, allowed=allowed, refused=refused)

    def next(self, k: int, point: Point, image: Point, residual: Tensor, memory: Recent) -> tuple[Point, Recent]:
        first = residual if k == 0 else memory.first
        refused = self._beyond_budget(residual, first, memory) if memory.refused is None else memory.refused
        accepted = memory.accepted + (memory.jumped & ~refused)
        step = subtract(image, point)
        differences = self._remembered(point, step, refused, memory)
        plain = select(refused, memory.plain, image)
        last = (point, step) if memory.last is None else _selected(refused, memory.last, (point, step))
        away = _extrapolation(step, differences)
        jump, target = length(away), subtract(image, away)
        jumped = ~refused & (jump > 0)
        if memory.descends is not None:
            target, short = landing(target, point, residual, memory.descends)
            jumped &= short
        chosen = select(jumped, target, plain)
        return chosen, replace(
            memory,
            jumped=jumped,
            jump_length=jump,
            accepted=accepted,
            first=first,
            plain=plain,
            last=last,
            differences=differences,
        )

    def _beyond_budget(self, residual: Tensor, first: Tensor, memory: Recent) -> Tensor:
        allowed = self.budget * first * (memory.accepted + 1) ** (-1 - self.decay)
        return memory.jumped & ~((residual <= allowed) & (memory.jump_length <= LENGTH * allowed))

    def _remembered(self, point: Point, step: Point, refused: Tensor, memory: Recent) -> tuple[tuple[Point, Point], ...]:
        """The differences with the newest one, and all forgotten where a jump was refused."""
        if memory.last is None:
            return ()
        newest = (subtract(point, memory.last[0]), subtract(step, memory.last[1]))
        kept = (*memory.differences, newest)[-self.memory :]
        if not bool(refused.any()):
            return kept
        nothing = tuple(torch.zeros_like(t) for t in point)
        return tuple(_selected(refused, (nothing, nothing), pair) for pair in kept)


def _selected(mask: Tensor, a: tuple[Point, Point], b: tuple[Point, Point]) -> tuple[Point, Point]:
    return select(mask, a[0], b[0]), select(mask, a[1], b[1])


def _extrapolation(step: Point, differences: tuple[tuple[Point, Point], ...]) -> Point:
    """(dx + dg) gamma, (dg^T dg + REGULARIZATION tr I) gamma = dg^T g, each image by itself, in double precision."""
    away = tuple(torch.zeros_like(t) for t in step)
    if not differences:
        return away
    changes = torch.stack([_flat(dg) for _, dg in differences], 1)
    gram = changes @ changes.mT
    right = (changes @ _flat(step)[..., None]).squeeze(-1)
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    shift = torch.where(trace > 0, REGULARIZATION * trace, 1.0)
    eye = torch.eye(len(differences), dtype=gram.dtype, device=gram.device)
    gamma = torch.linalg.solve(gram + shift[:, None, None] * eye, right)
    for weight, (dx, dg) in zip(gamma.unbind(-1), differences, strict=True):
        away = add(away, tuple(column(weight.to(t.dtype), t) * t for t in add(dx, dg)))
    return away


def _flat(p: Point) -> Tensor:
    return torch.cat([t.flatten(1) for t in p], 1).double()
