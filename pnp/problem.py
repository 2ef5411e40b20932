"""The data fidelity f(x) = 1/2 |Ax - y|^2 of a deepinv physics: gradient, proximal operator, certified smoothness.

Source: [BauschkeCombettes2017] for the proximal operator of a quadratic; conjugate gradients [HestenesStiefel1952]
with the a posteriori bound |p - prox f(v)| <= |p + gamma A^T(A p - y) - v|, since I + gamma A^T A >= I.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import deepinv
import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from pnp.guarantees import Refused, up
from pnp.smoothness import Smoothness, certified_smoothness

_KEEPS_THE_IMAGE = (deepinv.physics.Blur, deepinv.physics.BlurFFT, deepinv.physics.Denoising)
_IMAGE_DOMAIN = (*_KEEPS_THE_IMAGE, deepinv.physics.Inpainting, deepinv.physics.Demosaicing)


@dataclass(frozen=True)
class Problem:
    """A measurement y = A x + noise with a linear deepinv physics A, checked on construction.

    Parameters
    ----------
    measurement : y, (batch, ...), float32 or float64, finite; made from images in [0, 1].
    physics : A, a `deepinv.physics.LinearPhysics`.
    smoothness : an upper bound of |A|^2 if you know one; None computes it from the exact class of the physics.

    Raises
    ------
    Refused : the physics is not linear, its norm is unknown, or its adjoint is not the adjoint.
    ValueError : a measurement of wrong shape, dtype or range, or with NaN or infinite values.
    """

    measurement: Tensor
    physics: LinearPhysics
    smoothness: float | None = None
    reason: str = field(init=False, default="")
    exact_prox: bool = field(init=False, default=False)
    backprojection: Tensor = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        _check_measurement(self.measurement)
        if not isinstance(self.physics, LinearPhysics):
            raise Refused(
                f"{type(self.physics).__name__} is not covered: the theorems need a linear physics "
                "(deepinv.physics.LinearPhysics)."
            )
        known = self._smoothness()
        with torch.no_grad():
            backprojection = self._backproject()
            for name, value in (
                ("smoothness", known.bound),
                ("reason", known.reason),
                ("exact_prox", known.exact_prox),
                ("backprojection", backprojection),
            ):
                object.__setattr__(self, name, value)
            self._check_operator(supplied=known.reason == SUPPLIED)
            self._check_range()

    def gradient(self, x: Tensor) -> Tensor:
        """grad f(x) = A^T A x - A^T y; x and the result are images (batch, channels, height, width)."""
        return self.physics.A_adjoint_A(x) - self.backprojection

    def prox(self, v: Tensor, step_size: float, *, accuracy: float = 0.0) -> tuple[Tensor, Tensor]:
        """argmin over p of gamma f(p) + 1/2 |p - v|^2, gamma = step_size > 0, and a bound of its error, (batch,).

        The formula of a diagonal physics is exact up to rounding, of the order eps (1 + gamma L) |v|.

        Parameters
        ----------
        accuracy : the error |p - prox| allowed to each image where there is no formula; rounding is always allowed.

        Raises
        ------
        RuntimeError : conjugate gradients did not reach the accuracy.
        """
        if self.exact_prox:
            rounding = 4 * torch.finfo(v.dtype).eps * (1 + step_size * self.smoothness)
            return self.physics.prox_l2(v, self.measurement, step_size), rounding * per_image(v)
        return _conjugate_gradients(self.physics, v + step_size * self.backprojection, v, step_size, accuracy)

    @property
    def start(self) -> Tensor:
        """The usual first iterate: the measurement where it is an image of the same size, else A^T y."""
        same = type(self.physics) in _KEEPS_THE_IMAGE and self.measurement.shape == self.backprojection.shape
        return self.measurement if same else self.backprojection

    def _smoothness(self) -> Smoothness:
        if self.smoothness is None:
            return certified_smoothness(self.physics)
        if not (math.isfinite(self.smoothness) and self.smoothness > 0):
            raise ValueError(f"smoothness must be finite and positive, got {self.smoothness}")
        return Smoothness(float(self.smoothness), SUPPLIED)

    def _backproject(self) -> Tensor:
        """A^T y, with the shape of the measurement checked against the physics."""
        y, name = self.measurement, type(self.physics).__name__
        try:
            x = self.physics.A_adjoint(y)
            again = self.physics.A(x)
        except (RuntimeError, IndexError, TypeError) as error:
            first = str(error).strip().splitlines()[0]
            raise ValueError(f"a measurement of shape {tuple(y.shape)} does not fit the physics {name}: {first}") from None
        if again.shape != y.shape:
            raise ValueError(
                f"a measurement of shape {tuple(y.shape)} does not fit the physics {name}, which would measure "
                f"{tuple(again.shape)}: make the physics for the size of the image"
            )
        if x.ndim != 4 or x.is_complex():
            raise ValueError(f"images must be real (batch, channels, height, width), the physics makes {tuple(x.shape)}")
        return x

    def _check_operator(self, *, supplied: bool) -> None:
        """Random tests of linearity and adjointness, and of a supplied smoothness against power iteration."""
        generator = torch.Generator(device="cpu").manual_seed(0)
        u, v = (_like(self.backprojection, generator) for _ in range(2))
        w = _like(self.measurement, generator)
        name, A, A_adjoint = type(self.physics).__name__, self.physics.A, self.physics.A_adjoint
        image, other = A(u), A(v)
        tolerance = 1e-4 * max(_norm(image), _norm(other), 1e-30)
        if not _norm(A(2 * u - v) - (2 * image - other)) <= tolerance:
            raise Refused(f"{name} is not covered: its A is not linear (A(2u - v) differs from 2A(u) - A(v)).")
        for test in (w, image):
            forward, backward = _inner(image, test), _inner(u, A_adjoint(test))
            scale = _norm(image) * _norm(test) * (1e-4 if test is image else 1e-5)
            if not abs(forward - backward) <= scale + 1e-30:
                raise Refused(
                    f"{name} is not covered: its A_adjoint is not the adjoint of A (<Au, w> = {forward:.6g} but "
                    f"<u, A^T w> = {backward:.6g})."
                )
        if supplied:
            self._check_supplied(u)

    def _check_supplied(self, u: Tensor) -> None:
        for _ in range(10):
            u = self.physics.A_adjoint_A(u / _norm(u))
            if _norm(u) > self.smoothness * (1 + 1e-4):
                raise Refused(
                    f"smoothness={self.smoothness:g} is not an upper bound: a vector was found with "
                    f"|A^T A u|/|u| = {_norm(u):.6g}; pass at least {up(_norm(u))}, with a margin."
                )

    def _check_range(self) -> None:
        """Images are assumed in [0, 1]; a measurement far beyond what they can give was scaled otherwise."""
        if type(self.physics) not in _IMAGE_DOMAIN:
            return
        reach = float(self.physics.A(torch.ones_like(self.backprojection)).abs().max())
        largest = float(self.measurement.abs().max())
        if largest > 4 * max(reach, 1e-12) + 1:
            raise ValueError(
                f"the measurement reaches {largest:.4g}, where images in [0, 1] give at most about {reach:.4g}: divide "
                "8-bit images by 255 and 16-bit images by 65535"
            )


SUPPLIED = "supplied by the caller"


def _check_measurement(y: Tensor) -> None:
    if not isinstance(y, Tensor):
        raise TypeError(f"a measurement must be a torch.Tensor, got {type(y).__name__}")
    if y.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"a measurement must be float32 or float64, got {y.dtype}: convert it, with values from [0, 1]")
    if y.ndim < 2 or y.numel() == 0:
        raise ValueError(f"a measurement must be (batch, channels, height, width), not empty; got {tuple(y.shape)}")
    bad = int((~torch.isfinite(y)).sum())
    if bad:
        raise ValueError(f"the measurement has {bad} NaN or infinite values of {y.numel()}: mask or replace them first")


def _like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)


def _inner(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum())


def _norm(a: Tensor) -> float:
    return float(torch.linalg.vector_norm(a.double()))


def per_image(x: Tensor) -> Tensor:
    """The norm of each image of a batch, (batch,)."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def _conjugate_gradients(
    physics: LinearPhysics, b: Tensor, start: Tensor, step_size: float, accuracy: float, budget: int = 500
) -> tuple[Tensor, Tensor]:
    """Solve M p = b, M = I + gamma A^T A, each image by itself, until |b - M p| <= accuracy; with that norm."""

    def matrix(x: Tensor) -> Tensor:
        return x + step_size * physics.A_adjoint_A(x)

    tiny = torch.finfo(b.dtype).tiny
    target = (50 * torch.finfo(b.dtype).eps * per_image(b)).clamp(min=accuracy)
    p = start
    while True:
        r = direction = b - matrix(p)
        norm = per_image(r)
        if bool((norm <= target).all()):
            return p, norm
        if budget <= 0 or not bool(torch.isfinite(norm).all()):
            raise RuntimeError(
                f"the proximal operator reached an error of {float(norm.max()):.3g} where {float(target.max()):.3g} is "
                "needed: take a smaller step_size, float64, or PGD, which needs no proximal operator"
            )
        while budget > 0 and bool((norm > target / 2).any()):
            budget -= 1
            image = matrix(direction)
            step = norm**2 / (direction * image).flatten(1).sum(1).clamp(min=tiny)
            step = torch.where(norm > target / 2, step, 0.0)
            p, r = p + _column(step, b) * direction, r - _column(step, b) * image
            previous, norm = norm, per_image(r)
            direction = r + _column((norm / previous.clamp(min=tiny)) ** 2, b) * direction
        budget -= 1


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))
