"""A ridge potential at given noise levels: energy, gradient and curvature, strip by strip, by products over cells of pixels.

Source: R(x) = sum s^2 psi(W x/s), grad R = W^T s phi(W x/s), Hess R = W^T phi'(W x/s) W (docs/theorems.md, V1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from stablenet.linear.cells import in_cell_strips, product_matrix, taps
from stablenet.linear.mirrored import extended, extended_adjoint
from stablenet.networks import profiles

Features = Callable[[slice, Tensor], Tensor]


class Level:
    """R(., levels) for images of one size.

    Parameters
    ----------
    bank : W, (4 filters, channels, k, k), closed under flips.
    bends : a, (filters, segments), of `profiles`.
    scales : s, (batch, filters).
    size : of the images, height and width.
    half : products in bfloat16, where training may: 1 % of a feature that is small, .1 % of others.
    """

    def __init__(self, bank: Tensor, bends: Tensor, scales: Tensor, size: tuple[int, int], *, half: bool = False) -> None:
        self.kernel_size, self.size = bank.shape[-1], size
        self.matrix = product_matrix(bank).to(torch.bfloat16 if half else bank.dtype)
        self.bends = bends.repeat(4, 1)
        self.scales = scales.repeat(1, 4)[:, None, None, None]
        reach, q = self.kernel_size // 2, taps(self.kernel_size)
        self.before, self.after = reach, tuple(n % 2 + 2 * (q - 1) - reach for n in size)

    @staticmethod
    def linear(bank: Tensor, size: tuple[int, int], *, half: bool = False) -> Level:
        """The products of a bank alone, without a profile."""
        nothing = bank.new_zeros(len(bank) // 4, 1)
        return Level(bank, nothing, nothing.T + 1, size, half=half)

    def weighted(self, x: Tensor, m: Tensor) -> Tensor:
        """W^T m W x, m (batch, rows, columns, 4, 4 filters) of cells."""
        return self.mapped(x, lambda rows, u: u.mul_(m[:, rows]))

    def wide(self, x: Tensor) -> Tensor:
        """The image with all that the kernels see, its sides even."""
        return extended(x, self.before, (self.after[0], self.after[1]))

    def narrow(self, y: Tensor) -> Tensor:
        """The transpose of `wide`."""
        return extended_adjoint(y, self.size, self.before, (self.after[0], self.after[1]))

    def inside(self, x: Tensor) -> Tensor:
        """1 at features of pixels, 0 at those beyond an odd side; (1, rows, columns, 4, 1)."""
        ones = x.new_zeros(1, 1, *(n + n % 2 for n in self.size))
        ones[..., : self.size[0], : self.size[1]] = 1
        return functional.pixel_unshuffle(ones, 2).permute(0, 2, 3, 1)[..., None]

    def mapped(self, x: Tensor, function: Features) -> Tensor:
        """W^T f(W x), f(rows of cells, features (batch, rows, columns, 4, 4 filters)) elementwise."""
        with torch.autocast(x.device.type, enabled=False):
            return self.narrow(in_cell_strips(self.wide(x), self.matrix, self.kernel_size, function, self.size))

    def gradient(self, x: Tensor) -> Tensor:
        """W^T s phi(W x/s)."""
        return self.mapped(x, lambda rows, u: profiles.gradient(u.div_(self.scales), self.bends).mul_(self.scales))

    def energy_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch,) sum s^2 psi(W x/s), added up in double precision, and the gradient."""
        found: dict[int, Tensor] = {}

        def both(rows: slice, u: Tensor) -> Tensor:
            psi, phi = profiles.energy_and_gradient(u.div_(self.scales), self.bends)
            found[rows.start] = (psi * self.scales.square()).sum((1, 2, 3, 4), dtype=torch.float64)
            return phi.mul_(self.scales)

        gradient = self.mapped(x, both)
        return torch.stack([found[k] for k in sorted(found)]).sum(0), gradient

    def hessian(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """v -> W^T phi'(W x/s) W v, phi' from the left where phi bends."""
        return self._weighted(x, profiles.slope)

    def majorizer(self, guide: Tensor) -> Callable[[Tensor], Tensor]:
        """x -> W^T m W x with m = phi(v)/v at v = W guide/s: the gradient of a quadratic that equals R's at the guide."""
        return self._weighted(guide, profiles.weight)

    def _weighted(self, at: Tensor, rule: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        kept: dict[int, Tensor] = {}

        def keep(rows: slice, u: Tensor) -> Tensor:
            kept[rows.start] = rule(u.div_(self.scales), self.bends)
            return u.zero_()

        self.mapped(at, keep)
        return lambda v: self.mapped(v, lambda rows, u: u.mul_(kept[rows.start]))

    def looked_at(self, guide: Tensor) -> tuple[Tensor, Tensor]:
        """v and phi(v)/v at v = W guide/s, (batch, rows, columns, 4, 4 filters): what a guide says of the features."""
        shown: dict[int, tuple[Tensor, Tensor]] = {}

        def look(rows: slice, u: Tensor) -> Tensor:
            v = u / self.scales
            shown[rows.start] = v, profiles.weight(v, self.bends)
            return torch.zeros_like(u)

        self.mapped(guide, look)
        v, weight = (torch.cat(parts, 1) for parts in zip(*(shown[k] for k in sorted(shown)), strict=True))
        return v, weight
