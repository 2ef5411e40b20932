"""Limits of blocks as denoisers: an undecimated Haar frame of images, registered as a user would, and one of vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stablenet import proximal
from stablenet.blocks import NOK
from stablenet.linear import frames, parseval
from stablenet.networks import NOKLimit


class Wavelets(nn.Module):
    """D^T x: half the sums and differences of neighbors along rows, then along columns, at every pixel of a torus."""

    axis, dimension, size, coherence = 1, 1, 4, 1.0

    def adjoint(self, u: Tensor) -> Tensor:
        rows = [(u + s * torch.roll(u, -1, -2)) / 2 for s in (1, -1)]
        return torch.cat([(r + s * torch.roll(r, -1, -1)) / 2 for r in rows for s in (1, -1)], 1)

    def forward(self, y: Tensor) -> Tensor:
        parts = [(p + s * torch.roll(p, 1, -1)) / 2 for p, s in zip(y.split(1, 1), (1, -1, 1, -1), strict=True)]
        rows = [parts[0] + parts[1], parts[2] + parts[3]]
        return sum((r + s * torch.roll(r, 1, -2)) / 2 for r, s in zip(rows, (1, -1), strict=True))

    def complement(self, y: Tensor) -> Tensor:
        return y - self.adjoint(self(y))

    def dense(self) -> Tensor:
        raise NotImplementedError("it depends on the size of the image")


@parseval(Wavelets)
def _exact(frame: Wavelets) -> float:
    return 0.0


LIMITS: dict[str, Callable[[], NOKLimit]] = {
    "soft": lambda: NOKLimit(NOK(Wavelets(), proximal.SoftThreshold(0.7))),
    "soft-scaled": lambda: NOKLimit(NOK(Wavelets(), proximal.SoftThreshold(0.7), scale=0.95)),
    "shifted": lambda: NOKLimit(NOK(Wavelets(), proximal.ShiftedNonnegative(0.3))),
    "relu-scaled": lambda: NOKLimit(NOK(Wavelets(), proximal.Nonnegative(), scale=0.9)),
    "cosines": lambda: NOKLimit(NOK(frames.Cosines(1, 3), proximal.SoftThreshold(0.5), scale=0.97)),
    "group": lambda: NOKLimit(NOK(Wavelets(), proximal.GroupSoftThreshold(0.8, 2))),
}


def vectors(prox: proximal.Proximal, *, scale: float = 1.0, size: int = 12) -> NOKLimit:
    return NOKLimit(NOK(frames.Haar(5, size), prox, scale=scale))
