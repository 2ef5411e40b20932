"""Strength without a reference image: the discrepancy principle for any problem, Stein's unbiased risk for denoising.

Sources: the residual of the restored image has the size of the noise [Morozov1966]; the risk of a denoiser is estimated from
its divergence, by one random probe [Ramani2008]. Neither needs the true image; each run carries its own guarantee.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pnp.algorithms import Descent
from pnp.algorithms.protocol import settled
from pnp.iterating import iterate
from pnp.planning import Run, Stop
from pnp.points import per_image

ROUGH = Stop(3e-4, 60)
"""Where the runs end that only tell how strong the prior is."""


@dataclass(frozen=True)
class Discrepancy:
    """Choose the strength for which |Ax - y|^2 is `share` times n noise^2, n the entries of y.

    Parameters
    ----------
    share : of the noise's variance that is left in the residual; a little below 1, as the restored image fits some of it.
    factor : how far the strength may be from the one settled by default, up and down.
    trials : runs that are tried, each from the estimate of the one before.
    """

    share: float = 0.97
    factor: float = 8.0
    trials: int = 6


def discrepancy(run: Run, rule: Discrepancy) -> Run:
    """The run with the strength that the discrepancy principle chooses for its batch, from the estimate of the last trial.

    The strength is the weight of the potential for Descent, the denoiser's noise level for the others: the more, the larger is
    |Ax - y|, so that its logarithm is bisected.
    """
    problem, low, high = run.problem, -math.log(rule.factor), math.log(rule.factor)
    wanted = rule.share * problem.noise_level**2
    image = run.start
    for _ in range(rule.trials):
        middle = (low + high) / 2
        for record in iterate(replace(stronger(run, math.exp(middle)), stop=ROUGH, start=image)):
            image = record.estimate
        apart = problem.physics.A(image) - problem.measurement
        low, high = (low, middle) if float(apart.square().mean()) > wanted else (middle, high)
    return replace(stronger(run, math.exp((low + high) / 2)), start=image)


def stronger(run: Run, factor: float) -> Run:
    """The same run with its prior so many times stronger, under its theorem; the fixed point is another."""
    algorithm, scheme = run.algorithm, run.scheme
    if isinstance(algorithm, Descent):
        algorithm = replace(algorithm, weight=settled(algorithm.weight) * factor, step_size=None).settle(run.problem, run.prior)
        guarantee = scheme.guarantee(algorithm.guarantee(run.problem, run.prior))
        return replace(run, algorithm=algorithm, guarantee=guarantee)
    end = run.prior.accepts.max_noise_level
    level = run.denoiser_noise_level * factor if end is None else min(run.denoiser_noise_level * factor, 0.999 * end)
    return replace(run, denoise=run.prior.at(level), denoiser_noise_level=level)


def stein(
    denoiser: Callable[[Tensor, float], Tensor] | nn.Module,
    y: Tensor,
    noise_level: float,
    levels: Sequence[float],
    *,
    generator: torch.Generator,
    probe: float = 1e-2,
) -> tuple[float, tuple[float, ...]]:
    """The level among `levels` of the least estimated risk of D(., level) for y = x + noise, and the risks, as mean squares.

    |Dy - y|^2/n - s^2 + 2 s^2 div D(y)/n, s = noise_level, with the divergence from one probe b of random signs:
    <b, D(y + h b) - D(y)>/h, h = probe times the noise level [Ramani2008].
    """
    signs = torch.randint(0, 2, y.shape, generator=generator, dtype=y.dtype).to(y.device) * 2 - 1
    step, risks = probe * noise_level, []
    with torch.no_grad():
        for level in levels:
            image = denoiser(y, level)
            divergence = float((signs * (denoiser(y + step * signs, level) - image)).sum()) / step / y.numel()
            apart = float(per_image(image - y).square().sum()) / y.numel()
            risks.append(apart - noise_level**2 + 2 * noise_level**2 * divergence)
    best = min(range(len(risks)), key=risks.__getitem__)
    return float(levels[best]), tuple(risks)
