"""The one loop: iterate a settled algorithm under its theorem, watch the residual, stop, and return a Solution.

Source: for an averaged map the fixed-point residual never increases [BauschkeCombettes2017, theorem 5.15]; with
proximal errors e_k it grows by at most |e_k| + |e_(k-1)|, and convergence needs sum |e_k| < infinity [Combettes2004].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor, nn

from pnp.algorithms.state import Algorithm, State
from pnp.guarantees import Guarantee
from pnp.linear_solve import per_image
from pnp.planning import Run, plan

ROUNDING = 100


class GuaranteeViolated(RuntimeError):
    """The fixed-point residual increased, which the theorem excludes: the certificate or the physics is wrong."""


@dataclass(frozen=True)
class Record:
    """One iteration as it happens.

    Parameters
    ----------
    iteration : 1 for the first step.
    residual : |t_(k+1) - t_k| of each image in the theorem's variable, (batch,); a converged image keeps its last one.
    converged : of each image, (batch,) bool.
    distance : from the first iterate to this one in the theorem's variable, (batch,).
    state : after the step; `state.estimate` is the image.
    """

    iteration: int
    residual: Tensor
    converged: Tensor
    distance: Tensor
    state: State


@dataclass(frozen=True)
class Solution:
    """What a run returns.

    Parameters
    ----------
    estimate : (batch, channels, height, width), unclipped.
    residuals : (iterations, batch) fixed-point residuals in the theorem's variable; an image that has converged is
        frozen, and its last residual repeats.
    iterations : performed, the most of any image.
    converged : whether every image reached the tolerance.
    converged_per_image : (batch,) bool.
    guarantee : the theorem that held, with its numbers and assumptions.
    algorithm : with the step size and the relaxation that were used.
    denoiser_noise_level : sigma given to the denoiser.
    distance : (batch,) from the first iterate to the last in the theorem's variable.
    """

    estimate: Tensor
    residuals: Tensor
    iterations: int
    converged: bool
    converged_per_image: Tensor
    guarantee: Guarantee
    algorithm: Algorithm
    denoiser_noise_level: float
    distance: Tensor


def solve(
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
    callback: Callable[[Record], None] | None = None,
) -> Solution:
    """Restore the images behind y = A x + noise by plug-and-play, under a convergence theorem that is checked first.

    Parameters
    ----------
    algorithm : `PGD()` or `ADMM()`; settings left at None are chosen so that the theorem holds.
    y : measurement, (batch, ...), float32 or float64, of images in [0, 1].
    physics : a linear deepinv physics A.
    denoiser : a certified module, called as denoiser(x, sigma); it is put in evaluation mode and frozen.
    noise_level : standard deviation of the measurement's noise, for images in [0, 1]; > 0.
    denoiser_noise_level : sigma of the denoiser; None takes 0.55 sqrt(step_size / relaxation) noise_level.
    init : first iterate, of the shape of the images; None takes the measurement or A^T y.
    smoothness : an upper bound of |A|^2 for a physics that has no rule.
    tolerance : an image has converged when its residual, as a root mean square over its entries, is at most this.
    max_iterations : the budget; running out of it is not an error, `converged` tells.
    callback : called with a Record after each iteration.

    Raises
    ------
    Refused : no theorem covers the request.
    GuaranteeViolated : the residual increased in spite of the theorem.
    FloatingPointError : an iterate has NaN or infinite values; the message names the iteration.
    ValueError, TypeError : bad input.
    """
    run = plan(
        algorithm,
        y,
        physics,
        denoiser,
        noise_level=noise_level,
        denoiser_noise_level=denoiser_noise_level,
        init=init,
        smoothness=smoothness,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    residuals = []
    for record in iterate(run):
        residuals.append(record.residual)
        if callback is not None:
            callback(record)
    return Solution(
        estimate=record.state.estimate,
        residuals=torch.stack(residuals),
        iterations=len(residuals),
        converged=bool(record.converged.all()),
        converged_per_image=record.converged,
        guarantee=run.guarantee,
        algorithm=run.algorithm,
        denoiser_noise_level=run.denoiser_noise_level,
        distance=record.distance,
    )


@torch.no_grad()
def iterate(run: Run) -> Iterator[Record]:
    """Carry out a planned run, yielding a Record per iteration; stops on tolerance or budget, raises as `solve`."""
    run.problem.require_unchanged()
    state = first = run.algorithm.init(run.problem, run.denoise, run.start)
    size = state.variable[0].numel()
    converged = torch.zeros(len(run.start), dtype=torch.bool, device=run.start.device)
    ceiling = residual = torch.full((len(run.start),), math.inf, dtype=run.start.dtype, device=run.start.device)
    for iteration in range(1, run.max_iterations + 1):
        accuracy = math.sqrt(size) * 1e-3 / iteration**2
        moved = _step(run, state, accuracy, iteration)
        residual = torch.where(converged, residual, per_image(moved.variable - state.variable))
        _check_finite(residual, moved, iteration)
        ceiling = ceiling + moved.error + state.error
        _check_monotone(residual, ceiling, state.variable, iteration)
        ceiling = torch.minimum(ceiling, residual)
        keep = converged.reshape(-1, *[1] * (state.variable.ndim - 1))
        state = State(
            torch.where(keep, state.variable, moved.variable),
            torch.where(keep, state.estimate, moved.estimate),
            moved.error,
        )
        converged = converged | (residual <= run.tolerance * math.sqrt(size))
        yield Record(iteration, residual, converged, per_image(state.variable - first.variable), state)
        if converged.all():
            return


def _step(run: Run, state: State, accuracy: float, iteration: int) -> State:
    try:
        return run.algorithm.step(run.problem, run.denoise, state, accuracy=accuracy)
    except ValueError as error:
        if iteration == 1:
            raise
        raise FloatingPointError(f"iteration {iteration} could not be carried out: {error}") from error


def _check_finite(residual: Tensor, state: State, iteration: int) -> None:
    if not bool(torch.isfinite(residual).all()) or not bool(torch.isfinite(state.estimate).all()):
        raise FloatingPointError(
            f"iteration {iteration} produced NaN or infinite values: the denoiser or the physics has changed"
        )


def _check_monotone(residual: Tensor, ceiling: Tensor, variable: Tensor, iteration: int) -> None:
    """Refuse an increase beyond rounding, which is coarser where convolutions run in TensorFloat32."""
    coarse = variable.is_cuda and torch.backends.cudnn.allow_tf32 and variable.dtype == torch.float32
    slack = ROUNDING * (2**-13 if coarse else torch.finfo(variable.dtype).eps) * per_image(variable)
    worse = residual > ceiling + slack
    if bool(worse.any()):
        image = int(worse.nonzero()[0])
        raise GuaranteeViolated(
            f"the fixed-point residual of image {image} rose from {float(ceiling[image]):.6g} to "
            f"{float(residual[image]):.6g} at iteration {iteration}, which the theorem excludes: the denoiser's "
            "certificate or the smoothness of the physics is wrong"
        )
