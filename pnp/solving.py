"""One call from a measurement to a Solution: pose, prepare, plan, iterate.

Source: the theorems are those of the algorithm and the scheme (docs/theorems.md, P1 to P11).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor, nn

from pnp.algorithms.protocol import Algorithm
from pnp.guarantees import Guarantee
from pnp.iterating import Record, iterate
from pnp.planning import Run, Stop, plan
from pnp.priors import Prior
from pnp.problem import Problem
from pnp.schemes import Scheme
from pnp.tuning import Discrepancy, discrepancy


@dataclass(frozen=True)
class Solution:
    """What a run returns.

    Parameters
    ----------
    estimate : (batch, channels, height, width), unclipped unless the prior clips.
    residuals : (iterations, batch) fixed-point residuals in the theorem's variable and norm; an image that has converged is
        frozen, and its last residual repeats.
    iterations : performed, the most of any image; each evaluates the map once.
    converged : whether every image reached the tolerance.
    converged_per_image : (batch,) bool.
    guarantee : the theorem that held, with its numbers and assumptions.
    algorithm : with the step size and the relaxation that were used.
    denoiser_noise_level : sigma given to the denoiser.
    distance : (batch,) from the first point to the last in the theorem's norm.
    error_bound : (batch,) a bound of |x_k - x*|, x_k the estimate and x* the fixed point; None where no theorem gives one.
    energies : (iterations, batch) F at the points that were taken, where the theorem is one of descent on F, which never
        rises and is not above the last at the estimate; else None.
    refreshes : after how many iterations a new guide was taken, in a guided run.
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
    error_bound: Tensor | None = None
    energies: Tensor | None = None
    refreshes: tuple[int, ...] = ()


@dataclass
class Told:
    """What is kept of the records of a run as they come: the numbers of all, the images of the last."""

    residuals: list[Tensor] = field(default_factory=list)
    energies: list[Tensor] = field(default_factory=list)
    last: Record | None = None

    def add(self, record: Record) -> None:
        """One more record."""
        self.residuals.append(record.residual)
        self.last = record
        if record.energy is not None:
            self.energies.append(record.energy)

    def follow(self, run: Run, callback: Callable[[Record], None] | None) -> Record:
        """Carry out a run, each record to `callback` too; the last of them."""
        for record in iterate(run):
            self.add(record)
            if callback is not None:
                callback(record)
        return record


def solve(
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
    callback: Callable[[Record], None] | None = None,
    strength: Discrepancy | None = None,
) -> Solution:
    """Restore the images behind y = A x + noise by plug-and-play, under a convergence theorem that is checked first.

    `solve(PGD(), y, physics, denoiser, noise_level=0.03)` is short for
    `solve(PGD(), pose(y, physics, noise_level=0.03), prior(denoiser))`.

    Parameters
    ----------
    algorithm : `PGD()`, `ADMM()`, `DRS()`, `HQS()`, `RED()`, `CondatVu()` or `Descent()`; settings left at None are chosen
        so that the theorem holds.
    problem : from `pose`; or y, the measurement, (batch, ...), float32 or float64, of images in [0, 1].
    prior : from `prior`; or a linear deepinv physics A.
    denoiser : with y and a physics: a certified module, called as denoiser(x, sigma). A copy runs, so that the caller's is
        neither switched nor frozen, and what happens to it later is without effect.
    noise_level : with y and a physics: standard deviation of the measurement's noise, for images in [0, 1]; > 0.
    denoiser_noise_level : sigma of the denoiser; None settles it from the noise level and the problem.
    scheme : how the map is iterated: `Plain()`, `Overrelaxed(factor)`, `Halpern()`, `Anderson()`; the fixed point is the same.
        None takes Plain, and QuasiNewton for Descent.
    stop : `Stop(tolerance, max_iterations)`; or the two by themselves.
    start : first image, of the shape of the images; None takes the measurement or A^T y/L. `init` is another name.
    smoothness : with y and a physics that has no rule: an upper bound of |A|^2.
    strength : `Discrepancy()` chooses the strength of the prior by the size of |Ax - y|, in a few short runs; None takes what
        was chosen on photographs for such noise.
    callback : called with a Record after each iteration; what it holds last is the best estimate so far.

    Raises
    ------
    Refused : no theorem covers the request.
    GuaranteeViolated : the iterates broke the law of the theorem.
    FloatingPointError : an iterate has NaN or infinite values; the message names the iteration.
    ValueError, TypeError : bad input.
    """
    run = plan(
        algorithm,
        problem,
        prior,
        denoiser,
        noise_level=noise_level,
        denoiser_noise_level=denoiser_noise_level,
        scheme=scheme,
        stop=stop,
        start=start,
        init=init,
        smoothness=smoothness,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    run = run if strength is None else discrepancy(run, strength)
    told = Told()
    told.follow(run, callback)
    return concluded(run, told)


def concluded(run: Run, told: Told) -> Solution:
    """The solution that a run came to."""
    record, energies = told.last, told.energies
    assert record is not None
    return Solution(
        estimate=record.estimate,
        residuals=torch.stack(told.residuals),
        iterations=len(told.residuals),
        converged=bool(record.converged.all()),
        converged_per_image=record.converged,
        guarantee=run.guarantee,
        algorithm=run.algorithm,
        denoiser_noise_level=run.denoiser_noise_level,
        distance=record.distance,
        error_bound=record.error_bound,
        energies=torch.stack(energies) if energies else None,
    )
