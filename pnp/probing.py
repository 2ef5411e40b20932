"""Tests of an operator at random vectors: they prove nothing, and refuse what is not what it says.

A is compared with 2 A(u) - 3 A(v) at 2u - 3v, A_adjoint with A through inner products, A_adjoint_A with A_adjoint(A), the
bounds of its spectrum with Ritz values, which lie inside [GolubVanLoan2013, section 10.1], and prox_l2 with its
optimality condition.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from pnp.bounds import Bound, Refused
from stablenet.rounding import six_digits_up

PROX_STEPS = (0.05, 1.0, 20.0)  # over the smoothness
KRYLOV = 12


def tolerance(x: Tensor) -> float:
    """How far apart two ways to the same product may be, relatively: single precision at any size, or TensorFloat32."""
    coarse = x.is_cuda and torch.backends.cudnn.allow_tf32 and x.dtype == torch.float32
    return 3e-3 if coarse else 1e-4


def check_operator(physics: LinearPhysics, image: Tensor, measurement: Tensor) -> None:
    """Refuse an A that is not linear or mixes images, an A_adjoint or an A_adjoint_A that does not belong to it."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    u, v = (_like(image, generator) for _ in range(2))
    w = _like(measurement, generator)
    name, allowed = type(physics).__name__, tolerance(image)
    Au, Av = physics.A(u), physics.A(v)
    refused = f"{name} is not covered: its"
    _compare(f"{refused} A is not linear; A(2u - 3v) and 2A(u) - 3A(v)", physics.A(2 * u - 3 * v), 2 * Au - 3 * Av, allowed)
    if len(u) > 1:
        mixed = physics.A(torch.cat([v[:1], u[1:]]))[1:]
        _compare(f"{refused} A mixes the images of a batch: when one changes, the others", mixed, Au[1:], allowed)
    back = physics.A_adjoint(Au)
    for test, adjoint, factor in ((w, physics.A_adjoint(w), 0.1), (Au, back, 1.0)):
        forward, backward = _inner(Au, test), _inner(u, adjoint)
        if not abs(forward - backward) <= factor * allowed * _norm(Au) * _norm(test) + 1e-30:
            raise Refused(
                f"{refused} A_adjoint is not the adjoint of A (<Au, w> = {forward:.6g} but <u, A^T w> = {backward:.6g}); "
                "deepinv.physics.adjoint_function makes one."
            )
    _compare(f"{refused} A_adjoint_A is not A_adjoint(A(...)); they", physics.A_adjoint_A(u), back, allowed)


def _compare(claim: str, value: Tensor, expected: Tensor, allowed: float) -> None:
    wrong, size = _norm(value - expected), _norm(expected)
    if not wrong <= allowed * size + 1e-30:
        raise Refused(f"{claim} differ by {wrong:.6g} at a random image, where the norm is {size:.6g}.")


def check_bounds(physics: LinearPhysics, image: Tensor, upper: Bound, lower: Bound) -> None:
    """Refuse a bound of |A|^2 below, or one of the least eigenvalue above, what a short Lanczos iteration finds."""
    name, allowed = type(physics).__name__, tolerance(image)
    start = _like(image, torch.Generator(device="cpu").manual_seed(1)) + 1
    least, largest = ritz_values(physics.A_adjoint_A, start)
    if largest > upper.value * (1 + allowed):
        named = "smoothness" if upper.source == "supplied" else f"the bound of the class ({upper.reason})"
        remedy = "so the physics is not the operator that its attributes describe"
        if upper.source == "supplied":
            remedy = f"pass at least {six_digits_up(largest)}, with a margin"
        raise Refused(
            f"{named} = {upper.value:g} is not an upper bound of |A|^2 of {name}: an image was found with "
            f"|Au|^2/|u|^2 = {largest:.6g}; {remedy}."
        )
    if least < lower.value - allowed * upper.value:
        raise Refused(
            f"strong_convexity = {lower.value:g} ({lower.reason}) is not a lower bound of A^T A of {name}: an image was "
            f"found with |Au|^2/|u|^2 = {least:.6g}."
        )


def ritz_values(normal: Callable[[Tensor], Tensor], start: Tensor, steps: int = KRYLOV) -> tuple[float, float]:
    """The extreme eigenvalues of a symmetric map on the span of start, normal(start), ..., by Lanczos' recurrence.

    Both lie between the least and the largest eigenvalue of the map, and near them after a few steps.
    """
    diagonal: list[float] = []
    beside: list[float] = []
    scale = _norm(start)
    previous, vector = torch.zeros_like(start), start / (scale or 1.0)
    for _ in range(steps):
        image = normal(vector)
        diagonal.append(_inner(vector, image))
        image = image - diagonal[-1] * vector - (beside[-1] if beside else 0.0) * previous
        size = _norm(image)
        if not size > 1e-3 * max(map(abs, diagonal)):  # the span is (nearly) invariant: what follows would be rounding
            break
        beside.append(size)
        previous, vector = vector, image / size
    entries = torch.tensor(diagonal, dtype=torch.float64)
    off = torch.tensor(beside[: len(diagonal) - 1], dtype=torch.float64)
    values = torch.linalg.eigvalsh(torch.diag(entries) + torch.diag(off, 1) + torch.diag(off, -1))
    return float(values[0]), float(values[-1])


def prox_is_exact(physics: LinearPhysics, backprojection: Tensor, measurement: Tensor, smoothness: float) -> bool:
    """Whether p = prox_l2(v, y, gamma) has p + gamma (A^T A p - A^T y) = v up to rounding, at random v and several gamma."""
    generator = torch.Generator(device="cpu").manual_seed(2)
    for step_size in (scale / (smoothness or 1.0) for scale in PROX_STEPS):
        v = _like(backprojection, generator)
        try:
            p = physics.prox_l2(v, measurement, step_size)
        except (RuntimeError, ValueError, TypeError, IndexError):  # as for a factor that does not divide the image
            return False
        if p.shape != v.shape or p.dtype != v.dtype:
            return False
        size = _norm(v) + _norm(p) + step_size * _norm(backprojection)
        rounding = 100 * torch.finfo(v.dtype).eps * (1 + step_size * smoothness)
        if not _norm(p + step_size * (physics.A_adjoint_A(p) - backprojection) - v) <= rounding * size:
            return False
    return True


def _like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)


def _inner(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum())


def _norm(a: Tensor) -> float:
    return float(torch.linalg.vector_norm(a.double()))
