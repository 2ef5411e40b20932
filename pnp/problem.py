"""A measurement posed as the problem of minimizing f(x) = 1/2 |Ax - y|^2, checked once, then a plain value.

Source: the proximal operator of a quadratic [BauschkeCombettes2017, example 24.2]; p = prox_(gamma f)(v) solves
p + gamma A^T (A p - y) = v, by the formula of the physics where it was tested to solve it, else by conjugate gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import deepinv
import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from pnp import probing
from pnp.bounds import Bound, Refused
from pnp.fidelities import L2
from pnp.linear_solve import per_image, shifted_solve
from pnp.measurements import backproject, check_measurement, check_precision, check_range
from pnp.noise import check_noise_model, check_noise_scale, checked_noise_level
from pnp.physics import Smoothness, certified_smoothness, smoothness_at_every_size
from pnp.physics.alterations import Fingerprint

LEAST_SQUARES = L2()
FORMULA_ROUNDING = 8  # units in the last place that two orthonormal transforms and a division lose
_KEEPS_THE_IMAGE = (deepinv.physics.Blur, deepinv.physics.BlurFFT, deepinv.physics.Denoising)


@dataclass(frozen=True, eq=False)
class Problem:
    """A measurement y = A x + noise with a linear deepinv physics A; made and checked by `pose`.

    Parameters
    ----------
    measurement : y, (batch, ...), float32 or float64, finite; made from images in [0, 1].
    physics : A.
    noise_level : standard deviation of the noise, for images in [0, 1].
    fidelity : g of f(x) = g(Ax).
    smoothness : L >= |A|^2, a Lipschitz constant of the gradient of f.
    strong_convexity : mu <= the least eigenvalue of A^T A; 0 where none is known.
    exact_prox : whether `prox` is a formula.
    backprojection : A^T y, an image (batch, channels, height, width).
    tested : what was tested and not proved, in words for the guarantee.
    """

    measurement: Tensor
    physics: LinearPhysics
    noise_level: float
    fidelity: L2
    smoothness: Bound
    strong_convexity: Bound
    exact_prox: bool
    backprojection: Tensor
    tested: tuple[str, ...]
    fingerprint: Fingerprint = field(repr=False)

    def value(self, x: Tensor) -> Tensor:
        """f(x) of each image, (batch,)."""
        return self.fidelity.value(self.physics.A(x), self.measurement)

    def gradient(self, x: Tensor) -> Tensor:
        """grad f(x) = A^T A x - A^T y; x and the result are images (batch, channels, height, width)."""
        return self.physics.A_adjoint_A(x) - self.backprojection

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) of each image, (batch,), summed in double precision, and grad f(x), from one A and one A^T."""
        z = self.physics.A(x)
        return self.fidelity.value(z, self.measurement), self.physics.A_adjoint(self.fidelity.gradient(z, self.measurement))

    def prox(self, v: Tensor, step_size: float, *, accuracy: float = 0.0) -> tuple[Tensor, Tensor]:
        """argmin over p of gamma f(p) + 1/2 |p - v|^2, gamma = step_size > 0, and a bound of its error, (batch,).

        The formula of a physics is exact up to rounding, of the order eps (|v| + gamma |A^T y|).

        Parameters
        ----------
        accuracy : the error |p - prox| allowed to each image where there is no formula; rounding is always allowed.

        Raises
        ------
        RuntimeError : conjugate gradients did not reach the accuracy.
        """
        if self.exact_prox:
            size = per_image(v) + step_size * per_image(self.backprojection)
            return self.physics.prox_l2(v, self.measurement, step_size), FORMULA_ROUNDING * torch.finfo(v.dtype).eps * size
        b = v + step_size * self.backprojection
        return shifted_solve(self.physics.A_adjoint_A, b, v, step_size, accuracy=accuracy)

    @property
    def start(self) -> Tensor:
        """The usual first iterate: the measurement where it is an image of that size and scale (L about 1), else A^T y / L."""
        same = type(self.physics) in _KEEPS_THE_IMAGE and self.measurement.shape == self.backprojection.shape
        return (
            self.measurement
            if same and 0.5 <= self.smoothness.value <= 2
            else self.backprojection / (self.smoothness.value or 1.0)
        )

    @torch.no_grad()
    def require_unchanged(self) -> None:
        """Refuse to go on with a physics or a measurement that was changed since it was posed; costs one A^T.

        Raises
        ------
        Refused : a tensor or a setting is not as it was, or A^T y has another value.
        """
        name, changed = type(self.physics).__name__, self.fingerprint.changed(self.physics, self.measurement)
        if changed is None:
            again = self.physics.A_adjoint(self.measurement)
            allowed = probing.tolerance(self.measurement) * float(torch.linalg.vector_norm(self.backprojection))
            same = again.shape == self.backprojection.shape
            if same and float(torch.linalg.vector_norm(again - self.backprojection)) <= allowed:
                return
            changed = "A_adjoint"
        raise Refused(
            f"the problem with {name} is not covered any more: {changed} was changed after it was posed, so that its bounds "
            "speak of another operator. Pose it again: pnp.pose(y, physics, noise_level=...)."
        )


@torch.no_grad()
def pose(
    y: Tensor, physics: LinearPhysics, *, noise_level: float, fidelity: L2 = LEAST_SQUARES, smoothness: float | None = None
) -> Problem:
    """Check a measurement and its physics, and bound the constants of the data fidelity that theorems ask for.

    Parameters
    ----------
    y : measurement, (batch, ...), float32 or float64, finite; made from images in [0, 1].
    physics : A, a `deepinv.physics.LinearPhysics`.
    noise_level : standard deviation of the Gaussian noise, for images in [0, 1].
    fidelity : g of f(x) = g(Ax).
    smoothness : an upper bound of |A|^2 if you know one; None computes it from the exact class of the physics.

    Raises
    ------
    Refused : the physics is not linear, its norm is unknown, its adjoint is not the adjoint, its noise is not Gaussian.
    ValueError, TypeError : a measurement of wrong shape, dtype or range, or with NaN or infinite values; a noise level that
        is none or not that of the physics.
    """
    noise_level = checked_noise_level(noise_level)
    if not isinstance(physics, LinearPhysics):
        raise Refused(
            f"{type(physics).__name__} is not covered: the theorems need a linear physics (deepinv.physics.LinearPhysics)."
        )
    if not isinstance(fidelity, L2):
        raise TypeError(f"fidelity must be a pnp.fidelities.L2, got {type(fidelity).__name__}")
    check_measurement(y, physics)
    check_noise_model(physics, noise_level)
    y = y.detach()
    known = smoothness_at_every_size(physics) if smoothness is None else _supplied(smoothness)
    check_precision(y, physics)
    image = backproject(y, physics)
    probing.check_operator(physics, image, y)
    known = known or certified_smoothness(physics, image)
    upper = Bound(known.bound, known.reason, "proved" if smoothness is None else "supplied")
    lower = Bound(known.strong_convexity, known.convexity_reason)
    probing.check_bounds(physics, image, upper, lower)
    check_noise_scale(noise_level, upper.value)
    check_range(y, physics, image)
    exact = known.exact_prox and probing.prox_is_exact(physics, image, y, upper.value)
    told, mark = _told(type(physics).__name__, upper, exact), Fingerprint.of(physics, y)
    return Problem(y, physics, noise_level, fidelity, upper, lower, exact, image, told, mark)


def _supplied(smoothness: float) -> Smoothness:
    try:
        value = float(smoothness)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"smoothness must be one number, an upper bound of |A|^2, got {type(smoothness).__name__}") from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"smoothness must be finite and positive, got {value}")
    return Smoothness(value, "supplied by the caller")


def _told(name: str, smoothness: Bound, exact_prox: bool) -> tuple[str, ...]:
    told = [f"linearity and adjointness of {name} were tested at random vectors"]
    if smoothness.source == "supplied":
        told.append(f"smoothness <= {smoothness.value:g}, as supplied, was tested by a short Lanczos iteration")
    if exact_prox:
        told.append(f"the formula of the proximal operator of {name} was tested at random vectors")
    return tuple(told)
