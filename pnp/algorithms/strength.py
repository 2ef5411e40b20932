"""How strong a denoiser is taken when the caller does not say, settled from the noise and the problem.

Source: descending f/noise^2 + R with the step gamma noise^2 denoises with the variance gamma noise^2; the constant is measured.
"""

from __future__ import annotations

import math

from pnp.priors import Prior
from pnp.problem import Problem

STRENGTH = 0.55


def denoiser_level(problem: Problem, step_size: float, relaxation: float) -> float:
    """sigma = c sqrt(gamma/l) noise.

    The relaxed denoiser (1 - l) I + l D does the part l. c = 0.55 suits both smooth and textured photographs, at noise
    levels 0.01 to 0.05.
    """
    return STRENGTH * math.sqrt(step_size / relaxation) * problem.noise_level


def largest_step_size(problem: Problem, prior: Prior, relaxation: float) -> float:
    """The step size at which `denoiser_level` comes to the end of the denoiser's range; infinity if that is unknown."""
    end = prior.accepts.max_noise_level
    if end is None:
        return math.inf
    return relaxation * (0.999 * end / (STRENGTH * problem.noise_level)) ** 2
