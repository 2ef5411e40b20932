"""A denoiser averaged over the flips and quarter turns of the square: better pictures, the same certificate.

Source: conjugation by an isometry and convex combinations keep the Lipschitz constant and averagedness
(docs/theorems.md, C2, C3).
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from stablenet.certificate import CertificateTree, NotCertified, certify, mix, rule

FLIPS: tuple[tuple[int, ...], ...] = ((), (2, 3), (2,), (3,))
GROUP = tuple((axes, transposed) for transposed in (False, True) for axes in FLIPS)
"""Axes to flip, then whether to transpose: the eight symmetries of the square."""


class Symmetrized(nn.Module):
    """x -> mean over g of g^-1 D(g x, sigma), g the first `elements` of GROUP.

    Parameters
    ----------
    denoiser : D, called as denoiser(x, sigma) with x (batch, channels, height, width).
    elements : 2 (half turn), 4 (with the two flips) or 8 (the whole group); the cost is so many passes.

    Raises
    ------
    ValueError : elements is another number.
    """

    def __init__(self, denoiser: nn.Module, elements: int = 8) -> None:
        super().__init__()
        if elements not in (2, 4, 8):
            raise ValueError(f"elements must be 2, 4 or 8, got {elements!r}: these are the groups of flips and turns")
        self.denoiser, self.elements = denoiser, elements

    @property
    def channels(self) -> int:
        return int(cast(Any, self.denoiser).channels)

    @property
    def max_noise_level(self) -> float:
        return float(cast(Any, self.denoiser).max_noise_level)

    def forward(self, x: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        total: Tensor = self.denoiser(x, sigma)
        for axes, transposed in GROUP[1 : self.elements]:
            moved = x.flip(axes)
            moved = moved.transpose(2, 3) if transposed else moved
            moved = self.denoiser(moved.contiguous(), sigma)
            moved = moved.transpose(2, 3) if transposed else moved
            total = total + moved.flip(axes)
        return total / self.elements


@rule(Symmetrized)
def _certify(module: Symmetrized) -> CertificateTree:
    if module.elements not in (2, 4, 8):
        raise NotCertified(f"a mean over {module.elements!r} isometries has no proof: 2, 4 or 8 are groups")
    child = certify(module.denoiser)
    certificate = mix([child.certificate.conjugate()] * module.elements, [1 / module.elements] * module.elements)
    return CertificateTree("Symmetrized", certificate, f"mean over {module.elements} isometries", (child,))
