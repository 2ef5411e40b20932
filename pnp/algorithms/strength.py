"""How strong a denoiser is taken when the caller does not say, settled from the noise, the step size and the physics.

Source: descending f/noise^2 + R with the step gamma noise^2 denoises with the variance gamma noise^2; the constants are
measured on denoising, inpainting, demosaicing, deblurring, superresolution, Fourier sampling and tomography.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from pnp.algorithms.protocol import smallest
from pnp.points import inner
from pnp.priors import Prior
from pnp.problem import Problem

STRENGTH = 0.55
"""Of a blur, whose small eigenvalues the denoiser must not fill with its own idea; 1 of a projection, as in theory."""
FLOOR = 0.016
"""With less, what is not measured at all fills in so slowly that a run stops before it is there."""
SEED = 7919
STEP_SIZE = 2.0


@dataclass(frozen=True)
class Spectrum:
    """What one image of random signs tells of the eigenvalues of A^T A.

    Parameters
    ----------
    projection : how close A^T A/L is to a projection: 1 for masks and Fourier sampling, 0 for a blur.
    measured : the trace of A^T A/L over the number of pixels, which is the measured share for a projection.
    """

    projection: float
    measured: float

    @staticmethod
    def of(problem: Problem) -> Spectrum:
        smoothness = problem.smoothness.value or 1.0
        like = problem.backprojection
        signs = torch.randint(0, 2, like.shape, generator=torch.Generator().manual_seed(SEED), dtype=like.dtype)
        v = (2 * signs - 1).to(like.device)
        with torch.no_grad():
            image = problem.physics.A_adjoint_A(v)
        size, first, second = (float(inner(p, q).sum()) for p, q in (((v,), (v,)), ((v,), (image,)), ((image,), (image,))))
        flatness = second / (smoothness * first) if first > 0 else 0.0
        return Spectrum(min(1.0, max(0.0, 5 * flatness - 4)), min(1.0, max(0.0, first / (smoothness * size))))

    @property
    def strength(self) -> float:
        return STRENGTH + (1 - STRENGTH) * self.projection

    @property
    def floor(self) -> float:
        """FLOOR sqrt(missing/measured) for a projection."""
        return FLOOR * self.projection * math.sqrt((1 - self.measured) / self.measured) if self.measured > 0 else 0.0


def denoiser_level(problem: Problem, prior: Prior, step_size: float, relaxation: float) -> float:
    """sigma = max(c sqrt(gamma) noise, floor)/sqrt(l), since the relaxed denoiser (1 - l) I + l D does the part l.

    c = 0.55 suits both smooth and textured photographs behind a blur, at noise levels 0.01 to 0.05.
    """
    spectrum = Spectrum.of(problem)
    level = spectrum.strength * math.sqrt(step_size / relaxation) * problem.noise_level
    return max(level, min(spectrum.floor / math.sqrt(relaxation), _end(prior)))


def largest_step_size(problem: Problem, prior: Prior, relaxation: float) -> float:
    """The step size at which `denoiser_level` comes to the end of the denoiser's range; infinity if that is unknown."""
    end = _end(prior)
    return end if math.isinf(end) else relaxation * (end / (Spectrum.of(problem).strength * problem.noise_level)) ** 2


def _end(prior: Prior) -> float:
    return math.inf if prior.accepts.max_noise_level is None else 0.999 * prior.accepts.max_noise_level


def settled_step(step_size: float | None, problem: Problem, prior: Prior, relaxation: float) -> float:
    """The step size asked for, or, where any is covered, 2/L within the denoiser's range."""
    if step_size is not None:
        return step_size
    smoothness = problem.smoothness.value
    return smallest(STEP_SIZE / smoothness if smoothness else 1.0, largest_step_size(problem, prior, relaxation))
