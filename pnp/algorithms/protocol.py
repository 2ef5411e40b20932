"""What an algorithm is to the loop: needs that are declared, settings that can be settled, a map with its norm, a theorem.

Source: a convergence theorem is a function from problem and prior to a guarantee or a refusal (docs/theorems.md, P1 to P11).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, Self

from torch import Tensor

from pnp.bounds import Refused
from pnp.guarantees.guarantee import Guarantee, averaged, firmly_nonexpansive, largest_relaxation, relaxed
from pnp.points import Point
from pnp.priors import DenoiserAtLevel, Prior
from pnp.problem import Problem
from stablenet.potential import Potential
from stablenet.rounding import up

Denoise = Callable[[Tensor], Tensor]
OPERATIONS = ("gradient", "prox", "conjugate_prox")
FIRM = Fraction(1, 2)


@dataclass(frozen=True)
class Needs:
    """What an algorithm asks of a problem and of a denoiser.

    Parameters
    ----------
    operations : of the data fidelity, among OPERATIONS.
    averagedness : the largest alpha of the denoiser that the theorem takes.
    strict : whether that alpha itself is excluded.
    """

    operations: frozenset[str]
    averagedness: Fraction
    strict: bool = False


@dataclass(frozen=True)
class Applied:
    """One application of the iteration map T.

    Parameters
    ----------
    point : T(point), the variable that the theorem speaks of.
    estimate : the image that goes with the step, (batch, channels, height, width).
    error : (batch,) a bound of the distance between `point` and the exact T(point), in the algorithm's norm.
    energy : (batch,) F at the point that T was applied to, in double precision, where the theorem is one of descent on F.
    allowed : (batch,) what F is at most at T(point), in exact arithmetic; None where the law of the watch says it.
    """

    point: Point
    estimate: Tensor
    error: Tensor
    energy: Tensor | None = None
    allowed: Tensor | None = None


class Algorithm(Protocol):
    """Frozen settings, None for what `settle` chooses; all other methods need settled settings."""

    @property
    def needs(self) -> Needs: ...

    @property
    def step_size(self) -> float | None: ...

    @property
    def relaxation(self) -> float | None: ...

    def settle(self, problem: Problem, prior: Prior) -> Self:
        """These settings with every None replaced by a value for which the theorem holds."""
        ...

    def denoiser_noise_level(self, problem: Problem, prior: Prior) -> float:
        """The sigma given to the denoiser when the caller does not choose one."""
        ...

    def guarantee(self, problem: Problem, prior: Prior) -> Guarantee:
        """The theorem for the very module that runs, or a refusal."""
        ...

    def start(self, problem: Problem, image: Tensor) -> Point:
        """The first point, from an image."""
        ...

    def apply(self, problem: Problem, denoise: Denoise, point: Point, *, accuracy: float) -> Applied:
        """T(point), each image by itself; proximal operators without a formula to this accuracy."""
        ...

    def estimate(self, problem: Problem, denoise: Denoise, point: Point) -> Tensor:
        """The image that belongs to a point."""
        ...

    def norm(self, problem: Problem, difference: Point) -> Tensor:
        """The theorem's norm of a difference of points, (batch,)."""
        ...


def settled_relaxation(name: str, needs: Needs, relaxation: float | None, prior: Prior) -> float:
    """The relaxation asked for, or the largest up to 1 with which the theorem takes the denoiser, or a refusal.

    1/(2 alpha) makes a denoiser firmly nonexpansive; where alpha < 1 suffices, a merely nonexpansive one is relaxed to 1/2.
    """
    certificate = prior.certificate
    if relaxation is not None:
        if not needs.strict:
            firmly_nonexpansive(name, certificate, relaxation)
        elif relaxed(name, certificate, relaxation).averagedness is None:
            averaged(name, certificate, relaxation)
        return relaxation
    if certificate.averagedness is None or (needs.strict and certificate.is_averaged):
        return 1.0
    return min(1.0, largest_relaxation(certificate, FIRM if needs.strict else needs.averagedness))


def denoised(denoise: Denoise, x: Tensor, accuracy: float) -> tuple[Tensor, Tensor]:
    """D(x) and a bound of its error, (batch,), which is zero unless D is a proximal operator that is iterated."""
    return denoise.within(x, accuracy) if isinstance(denoise, DenoiserAtLevel) else (denoise(x), x.new_zeros(len(x)))


def weak_potential(prior: Prior) -> Potential | None:
    """What is proved of R where D is the proximal operator of one that is not convex, so that its theorems are others."""
    known = prior.potential
    return known if known is not None and known.weak_convexity > 0 else None


def lipschitz(denoise: Denoise) -> float:
    """A Lipschitz constant of D: 1, or 1/(1 - M) where R is M-weakly convex."""
    known = denoise.potential if isinstance(denoise, DenoiserAtLevel) else None
    return 1.0 if known is None else 1 / (1 - known.weak_convexity)


def weak_energy(denoise: Denoise, x: Tensor) -> Tensor | None:
    """R(x), (batch,), where R is not convex and a theorem of descent watches it."""
    if not isinstance(denoise, DenoiserAtLevel) or denoise.potential is None or denoise.potential.weak_convexity == 0:
        return None
    return denoise.energy(x)


def settled(value: float | None) -> float:
    """A setting that `settle` has filled in."""
    if value is None:
        raise ValueError("the algorithm is not settled: call settle(problem, prior) first, or pnp.solve")
    return value


def check_needs(name: str, needs: Needs, problem: Problem) -> None:
    """Refuse a fidelity that lacks an operation, naming what it has."""
    fidelity = type(problem.fidelity)
    has = [operation for operation in OPERATIONS if callable(vars(fidelity).get(operation))]
    missing = sorted(needs.operations - set(has))
    if missing:
        raise Refused(
            f"{name} is not covered: it needs the {' and the '.join(missing)} of the data fidelity, and {fidelity.__name__} "
            f"has only {', '.join(has) or 'none of them'}; take an algorithm that needs no more than that."
        )


def grounded(guarantee: Guarantee, problem: Problem, prior: Prior, *, existence: bool = True) -> Guarantee:
    """The guarantee with the bounds that it rests on and, where `existence`, why a fixed point exists (P7, derived)."""
    guarantee = guarantee.resting_on(f"smoothness <= {up(problem.smoothness.value)}", problem.smoothness)
    convexity = problem.strong_convexity
    if convexity.value > 0 and (guarantee.contraction is not None or guarantee.existence is None) and existence:
        guarantee = guarantee.resting_on(f"strong convexity >= {convexity.value:.6g}", convexity)
        guarantee = guarantee.with_fixed_point(guarantee.existence or "the data fidelity is strongly convex")
    elif existence and guarantee.existence is None and prior.box_weight is not None:
        guarantee = guarantee.with_fixed_point("the denoiser pulls every image into the box [0, 1] of pixels, which is bounded")
    return guarantee.tested_only(problem.tested)


def smallest(*candidates: float) -> float:
    """The smallest of several upper ends, of which some may be infinite; 1 if all are."""
    end = min(candidates)
    return end if math.isfinite(end) else 1.0
