"""Everything that is checked and settled before the first iteration: a Run that its theorem covers, or a refusal."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor, nn

from pnp.algorithms import Descent
from pnp.algorithms.protocol import Algorithm, check_needs, settled
from pnp.bounds import Refused
from pnp.guarantees import Guarantee
from pnp.priors import Prior
from pnp.priors import prior as ready
from pnp.problem import Problem, pose
from pnp.schemes import Plain, QuasiNewton, Scheme

SHORTER = (0.97, 0.94, 0.9)
"""Shares of the usual step size, tried in turn where a scheme asks for a map that is more averaged."""


@dataclass(frozen=True)
class Stop:
    """When a run ends.

    Parameters
    ----------
    tolerance : an image has converged when its residual, as a root mean square over its entries, is at most this.
    max_iterations : the budget; running out of it is no error.

    Raises
    ------
    ValueError : a negative tolerance or no iteration.
    """

    tolerance: float = 1e-4
    max_iterations: int = 1000

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ValueError(f"tolerance must be finite and >= 0, got {self.tolerance}")
        if self.max_iterations < 1:
            raise ValueError(f"max_iterations must be at least 1, got {self.max_iterations}")


@dataclass(frozen=True)
class Run:
    """A run whose theorem has been checked and which has not started; `iterate` carries it out.

    Parameters
    ----------
    algorithm : settled.
    problem, prior : what its theorem speaks of; the prior is the very module that runs.
    scheme, stop : how the map is iterated and until when.
    guarantee : the theorem.
    denoise : the prior at its noise level.
    denoiser_noise_level : that level.
    start : the first image.
    """

    algorithm: Algorithm
    problem: Problem
    prior: Prior
    scheme: Scheme[Any]
    stop: Stop
    guarantee: Guarantee
    denoise: Callable[[Tensor], Tensor]
    denoiser_noise_level: float
    start: Tensor

    @property
    def tolerance(self) -> float:
        return self.stop.tolerance

    @property
    def max_iterations(self) -> int:
        return self.stop.max_iterations


def plan(
    algorithm: Algorithm,
    problem: Problem | Tensor,
    prior: Prior | LinearPhysics,
    denoiser: nn.Module | None = None,
    *,
    noise_level: float | None = None,
    denoiser_noise_level: float | None = None,
    scheme: Scheme[Any] | None = None,
    stop: Stop | None = None,
    start: Tensor | None = None,
    init: Tensor | None = None,
    smoothness: float | None = None,
    tolerance: float | None = None,
    max_iterations: int | None = None,
) -> Run:
    """Check everything and settle every setting, without iterating; parameters and errors as in `solve`."""
    stop = _one_stop(stop, tolerance, max_iterations)
    problem, made = _posed(problem, prior, denoiser, noise_level, smoothness)
    image = _checked_start(_one_start(start, init), problem)
    check_needs(type(algorithm).__name__, algorithm.needs, problem)
    made = made.fitted(image.shape[1])
    scheme = usual_scheme(algorithm) if scheme is None else scheme
    chosen, made, guarantee = _covered(algorithm, scheme, problem, made)
    if denoiser_noise_level is None:
        denoiser_noise_level = chosen.denoiser_noise_level(problem, made)
    denoise = made.at(denoiser_noise_level)
    denoise.rehearse(image)
    return Run(chosen, problem, made, scheme, stop, guarantee, denoise, denoise.noise_level, image)


def usual_scheme(algorithm: Algorithm) -> Scheme[Any]:
    """Quasi-Newton jumps where an energy decides on them, so that nothing is assumed; else the map as it stands."""
    return QuasiNewton() if isinstance(algorithm, Descent) else Plain()


def _covered(algorithm: Algorithm, scheme: Scheme[Any], problem: Problem, prior: Prior) -> tuple[Algorithm, Prior, Guarantee]:
    """The algorithm settled, the prior relaxed for it, and their theorem under the scheme, or the refusal.

    A step size left at None is shortened where the scheme has no theorem for the usual one: the shorter it is, the more
    averaged is the map of an algorithm that descends.
    """
    usual = algorithm.settle(problem, prior)
    try:
        return _under(scheme, usual, problem, prior)
    except Refused as refusal:
        if algorithm.step_size is not None or not is_dataclass(algorithm):
            raise
        for share in SHORTER:
            shorter = replace(algorithm, step_size=share * settled(usual.step_size)).settle(problem, prior)
            with suppress(Refused):
                return _under(scheme, shorter, problem, prior)
        raise refusal from None


def _under(scheme: Scheme[Any], chosen: Algorithm, problem: Problem, prior: Prior) -> tuple[Algorithm, Prior, Guarantee]:
    prior = prior.relaxed(settled(chosen.relaxation))
    return chosen, prior, scheme.guarantee(chosen.guarantee(problem, prior))


def _posed(
    problem: Problem | Tensor,
    prior: Prior | LinearPhysics,
    denoiser: nn.Module | None,
    noise_level: float | None,
    smoothness: float | None,
) -> tuple[Problem, Prior]:
    """A problem and a prior, from themselves or from y, physics and denoiser."""
    if isinstance(problem, Problem):
        if denoiser is not None or noise_level is not None or smoothness is not None:
            raise TypeError("a posed problem has its noise_level and smoothness: pass (algorithm, problem, prior) alone")
        return problem, ready(prior)
    if denoiser is None or noise_level is None:
        raise TypeError("pass (algorithm, y, physics, denoiser, noise_level=...) or (algorithm, pnp.pose(...), pnp.prior(...))")
    return pose(problem, prior, noise_level=noise_level, smoothness=smoothness), ready(denoiser)


def _one_stop(stop: Stop | None, tolerance: float | None, max_iterations: int | None) -> Stop:
    if stop is None:
        usual = Stop()
        return Stop(
            usual.tolerance if tolerance is None else float(tolerance),
            usual.max_iterations if max_iterations is None else max_iterations,
        )
    if tolerance is not None or max_iterations is not None:
        raise TypeError("pass stop=Stop(tolerance, max_iterations) or the two by themselves, not both")
    return stop


def _one_start(start: Tensor | None, init: Tensor | None) -> Tensor | None:
    if start is not None and init is not None:
        raise TypeError("start and init are the same: pass one of them")
    return init if start is None else start


def _checked_start(start: Tensor | None, problem: Problem) -> Tensor:
    if start is None:
        return problem.start
    wanted = problem.backprojection
    if not isinstance(start, Tensor) or start.shape != wanted.shape or start.dtype != wanted.dtype:
        got = f"{tuple(start.shape)} {start.dtype}" if isinstance(start, Tensor) else type(start).__name__
        raise ValueError(f"init must be a tensor of shape {tuple(wanted.shape)} and {wanted.dtype}, got {got}")
    if not bool(torch.isfinite(start).all()):
        raise ValueError("init has NaN or infinite values")
    return start
