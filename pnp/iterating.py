"""The one loop: evaluate a settled algorithm's map, hold it to its law, let the scheme choose the next point, stop.

Source: docs/theorems.md, P8 to P10; with errors e_k of the proximal operators the residual grows by at most |e_k| + |e_(k-1)|,
and convergence needs sum |e_k| < infinity [Combettes2004]. The loop opens neither a point nor a scheme's memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pnp.algorithms.protocol import Applied
from pnp.guarantees import EnergyDescends, Evaluation
from pnp.planning import Run
from pnp.points import Point, column, length, select, subtract
from pnp.schemes import Judging

ROUNDING = 100


class GuaranteeViolated(RuntimeError):
    """The iterates broke a law that the theorem proves: the certificate or the physics is wrong."""


@dataclass(frozen=True)
class Record:
    """One evaluation of the map as it happens.

    Parameters
    ----------
    iteration : 1 for the first.
    residual : |x_k - T x_k| of each image in the theorem's variable and norm, (batch,); a converged image keeps its last one.
    converged : of each image, (batch,) bool.
    distance : from the first point to T x_k in the theorem's norm, (batch,).
    error_bound : (batch,) a bound of the distance from T x_k to the fixed point where the theorem gives one, else None.
    state : T x_k; `state.estimate` is the image that goes with it.
    energy : F(x_k) of each image, (batch,), where the theorem is one of descent on F, else None; where a point was tried and
        refused, all fields but the iteration are those of the last one that was taken.
    """

    iteration: int
    residual: Tensor
    converged: Tensor
    distance: Tensor
    error_bound: Tensor | None
    state: Applied
    energy: Tensor | None = None

    @property
    def estimate(self) -> Tensor:
        return self.state.estimate


@torch.no_grad()
def iterate(run: Run) -> Iterator[Record]:
    """Carry out a planned run, yielding a Record per evaluation; stops on tolerance or budget, raises as `solve`."""
    run.problem.require_unchanged()
    norm = run.algorithm.norm
    point = first = run.algorithm.start(run.problem, run.start)
    memory = run.scheme.init(point, run.guarantee)
    goal = run.stop.tolerance * math.sqrt(point[0][0].numel())
    history: list[Evaluation] = []
    before: tuple[Point, Point] | None = None
    kept: Record | None = None
    for k in range(run.stop.max_iterations):
        applied = _apply(run, point, k)
        step = subtract(point, applied.point)
        residual = norm(run.problem, step)
        refused, memory = _judged(run, applied, residual, memory)
        now = _evaluated(run, point, applied, residual, before, refused)
        active = torch.ones_like(residual, dtype=torch.bool) if kept is None else ~kept.converged
        _check_finite(residual, applied, active, k + 1)
        history.append(_checked(run, history, now, active, k + 1))
        taken = active if refused is None else active & ~refused
        converged = (residual <= goal) & taken | ~active
        distance = norm(run.problem, subtract(applied.point, first))
        record = Record(k + 1, residual, converged, distance, _error_bound(run, now), applied, applied.energy)
        kept = record if kept is None else _frozen(taken, record, kept)
        last = bool(converged.all()) or k + 1 == run.stop.max_iterations
        if last:
            image = run.algorithm.estimate(run.problem, run.denoise, kept.state.point)
            kept = replace(kept, state=replace(kept.state, estimate=image))
        yield kept
        if last:
            return
        before = (point, applied.point)
        point, memory = run.scheme.next(k, point, applied.point, residual, memory)


def _apply(run: Run, point: Point, k: int) -> Applied:
    accuracy = math.sqrt(point[0][0].numel()) * 1e-3 / (k + 1) ** 2
    try:
        return run.algorithm.apply(run.problem, run.denoise, point, accuracy=accuracy)
    except ValueError as error:
        if k == 0:
            raise
        raise FloatingPointError(f"iteration {k + 1} could not be carried out: {error}") from error


def _judged(run: Run, applied: Applied, residual: Tensor, memory: Any) -> tuple[Tensor | None, Any]:
    """Which images were tried at a point that F refuses, and the scheme's memory, where F decides."""
    if not isinstance(run.guarantee.watch, EnergyDescends) or not isinstance(run.scheme, Judging):
        return None, memory
    energy, allowed = _energies(run, applied, residual)
    assert energy is not None and allowed is not None
    return run.scheme.judge(energy, allowed, memory)


def _energies(run: Run, applied: Applied, residual: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """F at the point, and what it is at most at T of the point."""
    watch = run.guarantee.watch
    if applied.energy is None or not isinstance(watch, EnergyDescends):
        return None, None
    return applied.energy, watch.allowed(applied.energy, residual) if applied.allowed is None else applied.allowed


def _evaluated(
    run: Run,
    point: Point,
    applied: Applied,
    residual: Tensor,
    before: tuple[Point, Point] | None,
    refused: Tensor | None,
) -> Evaluation:
    """The numbers of this evaluation; the error holds the proximal one and the rounding."""
    error = applied.error + _rounding(point)
    nothing, endless = torch.zeros_like(residual), torch.full_like(residual, math.inf)
    if before is None or not run.guarantee.watch.pairs:
        return Evaluation(residual, error, endless, endless, nothing, nothing, *_energies(run, applied, residual), refused)
    moved, images = subtract(point, before[0]), subtract(applied.point, before[1])
    norms = [run.algorithm.norm(run.problem, d) for d in (moved, images, subtract(moved, images))]
    return Evaluation(residual, error, endless, *norms)


def _rounding(point: Point) -> Tensor:
    """Of one evaluation, (batch,): coarser where convolutions run in TensorFloat32."""
    x = point[0]
    coarse = x.is_cuda and torch.backends.cudnn.allow_tf32 and x.dtype == torch.float32
    return ROUNDING / 2 * (2**-13 if coarse else torch.finfo(x.dtype).eps) * length(point)


def _checked(run: Run, history: list[Evaluation], now: Evaluation, active: Tensor, iteration: int) -> Evaluation:
    """The evaluation with its ceiling, if an active image is not above it."""
    watch = run.guarantee.watch
    ceiling, observed = watch.ceiling(history, now), watch.observed(now)
    worse = (observed > ceiling) & active
    if bool(worse.any()):
        image = int(worse.nonzero()[0])
        found = watch.broken.format(image=image, ceiling=float(ceiling[image]), observed=float(observed[image]))
        raise GuaranteeViolated(
            f"{found} at iteration {iteration}, which the theorem excludes: the denoiser's certificate or the smoothness of "
            "the physics is wrong"
        )
    return replace(now, ceiling=ceiling)


def _check_finite(residual: Tensor, applied: Applied, active: Tensor, iteration: int) -> None:
    bad = ~torch.isfinite(residual) | ~torch.isfinite(applied.estimate.flatten(1)).all(1)
    if bool((bad & active).any()):
        raise FloatingPointError(
            f"iteration {iteration} produced NaN or infinite values: the denoiser or the physics has changed"
        )


def _error_bound(run: Run, now: Evaluation) -> Tensor | None:
    """|T x - x*| <= (q |x - T x| + e)/(1 - q), e the error of T x (Banach)."""
    q = run.guarantee.contraction
    return None if q is None else (q * now.residual + (1 + q) * now.error) / (1 - q)


def _frozen(active: Tensor, record: Record, kept: Record) -> Record:
    """The record, with the images that had converged before as they were."""
    point = select(active, record.state.point, kept.state.point)
    estimate = torch.where(column(active, record.estimate), record.estimate, kept.estimate)
    bound = record.error_bound
    if bound is not None and kept.error_bound is not None:
        bound = torch.where(active, bound, kept.error_bound)
    return Record(
        record.iteration,
        torch.where(active, record.residual, kept.residual),
        record.converged,
        torch.where(active, record.distance, kept.distance),
        bound,
        Applied(point, estimate, torch.where(active, record.state.error, kept.state.error)),
        None if record.energy is None or kept.energy is None else torch.where(active, record.energy, kept.energy),
    )
