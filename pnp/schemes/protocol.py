"""How an averaged map T is iterated: a scheme wraps any algorithm and knows the law that its iterates obey.

Source: docs/theorems.md, P8. A scheme evaluates T once a step; the residual is always |x - T x|, so that stopping means the
same for all.
"""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor

from pnp.guarantees import Guarantee
from pnp.points import Point

Memory = TypeVar("Memory")


class Scheme(Protocol[Memory]):
    """Frozen settings; what changes from step to step is its memory, which the loop never opens."""

    def guarantee(self, base: Guarantee) -> Guarantee:
        """The guarantee of the algorithm, iterated by this scheme: its law is set as the watch, or the scheme refuses."""
        ...

    def init(self, point: Point, guarantee: Guarantee) -> Memory:
        """The memory before the first evaluation, which is at `point`."""
        ...

    def next(self, k: int, point: Point, image: Point, residual: Tensor, memory: Memory) -> tuple[Point, Memory]:
        """Where T is evaluated next, each image by itself.

        Parameters
        ----------
        k : evaluations before this one.
        point, image : x and T(x).
        residual : |x - T x| in the algorithm's norm, (batch,).
        """
        ...


@runtime_checkable
class Judging(Protocol[Memory]):
    """A scheme that tries points of which the energy decides, once it is known there (docs/theorems.md, P10)."""

    def judge(self, energy: Tensor, allowed: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Whether the point under evaluation is refused, (batch,) bool, and the memory that knows it.

        Parameters
        ----------
        energy : F at the point, (batch,), in double precision.
        allowed : what F is at most at T(point), (batch,): how low it must be at a point that is taken in its place.
        """
        ...
