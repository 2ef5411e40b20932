"""Tests of an operator at random vectors: they prove nothing, and refuse what is not what it says.

A is compared with 2 A(u) - 3 A(v) at 2u - 3v, A_adjoint with A through inner products, A_adjoint_A with A_adjoint(A), a
bound of |A|^2 with the quotients of a short power iteration, and prox_l2 with its optimality condition.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from pnp.bounds import Bound, Refused

TOLERANCE = 1e-4  # of the operator's parts against each other, relative: single precision at any size of image
PROX_STEPS = (0.05, 1.0, 20.0)


def check_operator(physics: LinearPhysics, image: Tensor, measurement: Tensor) -> None:
    """Refuse an A that is not linear, an A_adjoint that is not its adjoint, an A_adjoint_A that is not their product."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    u, v = (_like(image, generator) for _ in range(2))
    w = _like(measurement, generator)
    name, A, A_adjoint = type(physics).__name__, physics.A, physics.A_adjoint
    Au, Av = A(u), A(v)
    wrong, size = _norm(A(2 * u - 3 * v) - (2 * Au - 3 * Av)), max(_norm(Au), _norm(Av), 1e-30)
    if not wrong <= TOLERANCE * size:
        raise Refused(
            f"{name} is not covered: its A is not linear (A(2u - 3v) differs from 2A(u) - 3A(v), by {wrong:.6g} where the "
            f"norms are {size:.6g})."
        )
    back = A_adjoint(Au)
    for test, adjoint, tolerance in ((w, A_adjoint(w), TOLERANCE / 10), (Au, back, TOLERANCE)):
        forward, backward = _inner(Au, test), _inner(u, adjoint)
        if not abs(forward - backward) <= tolerance * _norm(Au) * _norm(test) + 1e-30:
            raise Refused(
                f"{name} is not covered: its A_adjoint is not the adjoint of A (<Au, w> = {forward:.6g} but "
                f"<u, A^T w> = {backward:.6g}); deepinv.physics.adjoint_function makes one."
            )
    wrong, size = _norm(physics.A_adjoint_A(u) - back), max(_norm(back), 1e-30)
    if not wrong <= TOLERANCE * size:
        raise Refused(
            f"{name} is not covered: its A_adjoint_A is not A_adjoint(A(...)); at a random image they differ by "
            f"{wrong:.6g}, where the norm is {size:.6g}."
        )


def check_bounds(physics: LinearPhysics, image: Tensor, upper: Bound, lower: Bound) -> None:
    """Refuse a bound of |A|^2 that a short power iteration exceeds, or a mu above a quotient |A u|^2/|u|^2."""
    u = _like(image, torch.Generator(device="cpu").manual_seed(1)) + 1
    name, largest = type(physics).__name__, 0.0
    quotient = (_norm(physics.A(u)) / _norm(u)) ** 2
    for _ in range(10):
        size = _norm(u)
        if size == 0:
            break
        u = physics.A_adjoint_A(u / size)
        largest = max(largest, _norm(u))
    if largest > upper.value * (1 + TOLERANCE):
        raise Refused(
            f"{_named(upper)} = {upper.value:g} is not an upper bound of |A|^2 of {name}: a vector was found with "
            f"|A^T A u|/|u| = {largest:.6g}; {_advice(upper, largest)}"
        )
    if quotient < lower.value * (1 - TOLERANCE):
        raise Refused(
            f"strong_convexity={lower.value:g} is not a lower bound of A^T A of {name}: a vector was found with "
            f"|Au|^2/|u|^2 = {quotient:.6g}."
        )


def prox_is_exact(
    physics: LinearPhysics, gradient: Callable[[Tensor], Tensor], image: Tensor, measurement: Tensor, smoothness: float
) -> bool:
    """Whether p = prox_l2(v, y, gamma) satisfies p + gamma grad f(p) = v up to rounding, at random v and several gamma."""
    generator = torch.Generator(device="cpu").manual_seed(2)
    for step_size in (scale / (smoothness or 1.0) for scale in PROX_STEPS):
        v = _like(image, generator)
        try:
            p = physics.prox_l2(v, measurement, step_size)
        except (RuntimeError, ValueError, TypeError, IndexError):  # as for a factor that does not divide the image
            return False
        if p.shape != v.shape or p.dtype != v.dtype:
            return False
        size = _norm(v) + _norm(p) + step_size * _norm(gradient(torch.zeros_like(v)))
        rounding = 100 * torch.finfo(v.dtype).eps * (1 + step_size * smoothness)
        if not _norm(p + step_size * gradient(p) - v) <= rounding * size:
            return False
    return True


def _named(bound: Bound) -> str:
    return "smoothness" if bound.source == "supplied" else f"the bound of the class ({bound.reason})"


def _advice(bound: Bound, found: float) -> str:
    if bound.source == "supplied":
        return f"pass at least {found * (1 + TOLERANCE):.6g}, with a margin."
    return "so the physics is not the operator that its attributes describe."


def _like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)


def _inner(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum())


def _norm(a: Tensor) -> float:
    return float(torch.linalg.vector_norm(a.double()))
