"""The limit x -> R^T D y of a block's steps as a denoiser: a firmly nonexpansive map, known up to an error that is bounded.

Source: D y is the proximal map of z -> min {phi(y) : D y = z} at R x, and the bounds of the error come from a duality gap or
from strong convexity (docs/theorems.md, K6); the iteration is [BeckTeboulle2009] with restarts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from stablenet.blocks.nok import NOK, require_signal
from stablenet.certificate import Certificate, CertificateTree, NotCertified
from stablenet.certificate import rule as certificate_rule
from stablenet.linear import Frame, parseval
from stablenet.networks.checks import checked_levels
from stablenet.potential import Denoised, bounded_error
from stablenet.proximal import Homogeneous, Proximal, Scaled
from stablenet.rounding import root_up, round_up, up
from stablenet.sectors import sector

ACCURACY = 1e-4
SMALLEST_LEVEL = 1e-6
CHECKED = 8
"""Iterations between two looks at the error."""


class NOKLimit(nn.Module):
    """D(x, sigma) = sigma R^T D y(x/sigma), y(x) the limit of a block's steps: the minimizer of |R x - D y|^2/2 + phi(y).

    The weights in phi are in units of the noise: a threshold t acts as t sigma. Levels below 1e-6 count as 1e-6.

    Parameters
    ----------
    block : tied, phi convex; scaled, or phi positively homogeneous with a weight (ShiftedNonnegative, SoftThreshold,
        GroupSoftThreshold), as otherwise nothing bounds the error of an iterate.
    max_noise_level : the largest sigma.
    max_iterations : where the iteration ends, with the error that it has then.

    Shapes: (batch, features) for frames of vectors, (batch, channels, height, width) for frames of images; sigma a number or
    one for each of the batch.

    Raises
    ------
    ValueError : a block that does not fit; x or sigma of another shape or out of range.
    """

    def __init__(self, block: NOK, *, max_noise_level: float = 1.0, max_iterations: int = 1000) -> None:
        super().__init__()
        _require_limit(block, ValueError)
        if not (0 < max_noise_level < math.inf and max_iterations >= 1):
            raise ValueError(f"max_noise_level and max_iterations must be positive, got {max_noise_level}, {max_iterations}")
        self.block, self.max_noise_level, self.max_iterations = block, float(max_noise_level), max_iterations

    @property
    def channels(self) -> int:
        return self.block.frame.dimension

    def forward(self, x: Tensor, sigma: float | Tensor | None = 1.0) -> Tensor:
        """D(x, sigma); where gradients are recorded, they are those of the iterations that were run."""
        return self._limit(x, sigma, ACCURACY).image

    @torch.no_grad()
    def denoise(self, y: Tensor, sigma: float | Tensor | None = 1.0, *, accuracy: float = ACCURACY) -> Denoised:
        """D(y, sigma) with a proved bound of its error.

        accuracy : of the root mean square over the entries of each of the batch; the iteration stops where the bound is below.
        """
        return self._limit(y, sigma, accuracy)

    def _limit(self, x: Tensor, sigma: float | Tensor | None, accuracy: float) -> Denoised:
        frame = self.block.frame
        require_signal(x, frame, self.training)
        if x.ndim != (2 if frame.axis == -1 else 4) or x.numel() == 0:
            raise ValueError(f"x must be a batch of vectors (2 axes) or of images (4 axes), not empty; got {tuple(x.shape)}")
        if not accuracy > 0:
            raise ValueError(f"accuracy must be positive, got {accuracy}")
        scale = checked_levels(sigma, x, self.max_noise_level).clamp_min(SMALLEST_LEVEL)
        column = scale.reshape(-1, *[1] * (x.ndim - 1))
        goal = accuracy * math.sqrt(x[0].numel()) / scale.double()
        found = synthesis(frame, self.block.prox, self.block.rotated(x / column), goal, self.max_iterations)
        image, longest = found.image, 1.0
        if len(self.block.rotations):
            image, longest = self.block.rotations[0].adjoint(image), float(root_up(1 + _defect(self.block.rotations[0])))  # type: ignore[operator]
        return Denoised(column * image, longest * scale.double() * found.error)


@dataclass
class _Iterate:
    """y with D y, the point that its step was taken from, and the momentum's t, each of the batch by itself."""

    y: Tensor
    image: Tensor
    t: Tensor


def synthesis(frame: Frame, prox: Proximal, u: Tensor, goal: Tensor, max_iterations: int) -> Denoised:
    """D y for a minimizer y of |u - D y|^2/2 + phi(y), with (batch,) bounds of the errors, at most `goal` if there is time."""
    column = (-1, *[1] * (u.ndim - 1))
    y = ahead = frame.adjoint(u) * 0
    image = ahead_image = u * 0
    t = torch.ones(len(u), dtype=u.dtype, device=u.device)
    best, smallest = image, torch.full_like(goal, math.inf)
    for k in range(max_iterations):
        new = prox.prox(ahead + frame.adjoint(u - ahead_image), frame.axis)
        new_image = frame(new)
        if k % CHECKED == 0 or k == max_iterations - 1:
            near, error = _with_error(frame, prox, u, new, new_image, ahead)
            best = torch.where((error < smallest).reshape(column), near, best)
            smallest = torch.minimum(error, smallest)
            if bool((smallest <= goal).all()):
                break
        uphill = ((ahead - new) * (new - y)).flatten(1).sum(1) > 0
        t = torch.where(uphill, 1.0, t)
        following = (1 + (1 + 4 * t * t).sqrt()) / 2
        momentum = ((t - 1) / following).reshape(column)
        ahead, ahead_image = new + momentum * (new - y), new_image + momentum * (new_image - image)
        y, image, t = new, new_image, following
    return Denoised(best, smallest)


def _with_error(frame: Frame, prox: Proximal, u: Tensor, y: Tensor, image: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """A point near D y* and a bound of its distance, (batch,); y is one step after `before`.

    Scaled by c: y - before less its part in the rows' space is a subgradient x of an objective that is (1/c - 1)-strongly
    convex, so that |D y - D y*| <= |x|/(2 sqrt(1/c - 1)). Homogeneous: s r, s <= 1, is a dual point, r = u - D y, and with the
    duality gap g the point D y + (1 - s) r/2 is within sqrt(g - (1 - s)^2 |r|^2/4) of D y*.
    """
    if isinstance(prox, Scaled):
        size = torch.linalg.vector_norm(frame.complement(before - y).flatten(1), dim=1)
        return image, size.double() / (2 * math.sqrt(1 / prox.factor - 1))
    if not isinstance(prox, Homogeneous):
        raise NotCertified(f"nothing bounds the error of an iterate for {prox!r}")
    residual = u - image
    w = frame.adjoint(residual)
    largest = prox.polar(w, frame.axis).reshape(len(u), -1).amax(1).double()
    share = 1 / largest.clamp_min(1)
    value = prox.value(y, frame.axis).reshape(len(u), -1).sum(1).double()
    slack = value - share * (w * y).flatten(1).sum(1, dtype=torch.float64)
    rest = (1 - share) ** 2 * residual.flatten(1).square().sum(1, dtype=torch.float64)
    column = (-1, *[1] * (u.ndim - 1))
    return image + ((1 - share) / 2).to(u.dtype).reshape(column) * residual, (slack.clamp_min(0) + rest / 4).sqrt()


def _require_limit(block: NOK, refusal: type[Exception]) -> None:
    if type(block) is not NOK:
        raise refusal(f"the limit is that of a NOK block, got {type(block).__name__}")
    if not block.tied:
        raise refusal("a block whose steps have rotations of their own has no limit: take tied=True")
    if not block.prox.convex:
        raise refusal(f"{block.prox!r} is not convex: its limit depends on the start and is no function; take SoftThreshold")
    if not isinstance(block.prox, Scaled | Homogeneous):
        raise refusal(f"nothing bounds the error of an iterate for {block.prox!r}: give the block scale < 1, as 0.99")


def _defect(rotation: object) -> Fraction:
    return Fraction(parseval.of(rotation))


@bounded_error(NOKLimit)
def _error(module: NOKLimit) -> str:
    _require_limit(module.block, NotCertified)
    return "strong convexity" if isinstance(module.block.prox, Scaled) else "a duality gap"


@certificate_rule(NOKLimit)
def _certify(module: NOKLimit) -> CertificateTree:
    """|dz|^2 (1 + m/|D|^2) <= <du, dz> for an m-strongly convex phi, and |R^T dz| <= |R||dz|."""
    block = module.block
    _require_limit(block, NotCertified)
    high = sector.of(block.prox).high
    if not 0 < high <= 1:
        raise NotCertified(f"{block.prox!r} with slopes up to {up(high)} is not known to belong to a convex function")
    bound = 1 / (1 + (1 / high - 1) / (1 + Fraction(parseval.of(block.frame))))
    for rotation in block.rotations:
        bound *= 1 + _defect(rotation)
    alpha = 0.5 if bound <= 1 else None
    return CertificateTree("NOKLimit", Certificate(round_up(bound), alpha), "the proximal map of min {phi(y) : D y = R z}")
