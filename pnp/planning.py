"""Everything that is checked and settled before the first iteration: a Run that its theorem covers, or a refusal."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor, nn

from pnp.algorithms.state import Algorithm
from pnp.denoisers import prepare
from pnp.guarantees import Guarantee
from pnp.problem import Problem, pose


@dataclass(frozen=True)
class Run:
    """A run whose theorem has been checked and which has not started; `iterate` carries it out."""

    algorithm: Algorithm
    problem: Problem
    denoise: Callable[[Tensor], Tensor]
    guarantee: Guarantee
    denoiser_noise_level: float
    start: Tensor
    tolerance: float
    max_iterations: int


def plan(
    algorithm: Algorithm,
    y: Tensor,
    physics: LinearPhysics,
    denoiser: nn.Module,
    *,
    noise_level: float,
    denoiser_noise_level: float | None = None,
    init: Tensor | None = None,
    smoothness: float | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
) -> Run:
    """Check everything and settle every setting, without iterating; parameters and errors as in `solve`."""
    _check_numbers(tolerance, max_iterations)
    problem = pose(y, physics, noise_level=noise_level, smoothness=smoothness)
    start = problem.start if init is None else _checked_init(init, problem)
    prepared = prepare(denoiser, channels=start.shape[1])
    settled = algorithm.settle(problem.smoothness.value, prepared.certificate, noise_level, prepared.max_noise_level)
    guarantee = settled.guarantee(prepared.certificate, problem)
    if denoiser_noise_level is None:
        denoiser_noise_level = settled.denoiser_noise_level(noise_level)
    denoise = prepared.at(denoiser_noise_level, settled.relaxation)
    guarantee = replace(guarantee, assumptions=(*guarantee.assumptions, *problem.tested))
    return Run(settled, problem, denoise, guarantee, float(denoiser_noise_level), start, float(tolerance), max_iterations)


def _check_numbers(tolerance: float, max_iterations: int) -> None:
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance must be finite and >= 0, got {tolerance}")
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")


def _checked_init(init: Tensor, problem: Problem) -> Tensor:
    wanted = problem.backprojection
    if not isinstance(init, Tensor) or init.shape != wanted.shape or init.dtype != wanted.dtype:
        got = f"{tuple(init.shape)} {init.dtype}" if isinstance(init, Tensor) else type(init).__name__
        raise ValueError(f"init must be a tensor of shape {tuple(wanted.shape)} and {wanted.dtype}, got {got}")
    if not bool(torch.isfinite(init).all()):
        raise ValueError("init has NaN or infinite values")
    return init
