"""The one loop: evaluate a settled algorithm's map, hold it to its law, let the scheme choose the next point, stop.

Source: docs/theorems.md, P8 and P9; with errors e_k of the proximal operators the residual grows by at most |e_k| + |e_(k-1)|,
and convergence needs sum |e_k| < infinity [Combettes2004]. The loop opens neither a point nor a scheme's memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pnp.algorithms.protocol import Applied
from pnp.guarantees import Evaluation
from pnp.planning import Run
from pnp.points import Point, column, length, select, subtract

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
    """

    iteration: int
    residual: Tensor
    converged: Tensor
    distance: Tensor
    error_bound: Tensor | None
    state: Applied

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
        now = _evaluated(run, point, applied, residual, before)
        active = torch.ones_like(residual, dtype=torch.bool) if kept is None else ~kept.converged
        _check_finite(residual, applied, active, k + 1)
        history.append(_checked(run, history, now, active, k + 1))
        converged = (residual <= goal) | ~active
        distance = norm(run.problem, subtract(applied.point, first))
        record = Record(k + 1, residual, converged, distance, _error_bound(run, now), applied)
        kept = record if kept is None else _frozen(active, record, kept)
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


def _evaluated(run: Run, point: Point, applied: Applied, residual: Tensor, before: tuple[Point, Point] | None) -> Evaluation:
    """The numbers of this evaluation; the error holds the proximal one and the rounding."""
    error = applied.error + _rounding(point)
    nothing, endless = torch.zeros_like(residual), torch.full_like(residual, math.inf)
    if before is None or not run.guarantee.watch.pairs:
        return Evaluation(residual, error, endless, endless, nothing, nothing)
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
    )
