"""How one denoiser becomes another that starts close to it: larger, without idle blocks, or less anchored.

Source: derived: n blocks whose thresholds add up to one, and whose anchors compose to one, do nearly what it does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from stablenet.networks.architectures import DenoiserArchitecture

FIXED = ("channels", "features", "segments", "scale", "extra_channels", "anchored", "max_noise_level")


@dataclass(frozen=True)
class Growth:
    """Each block becomes `copies`, kernels get `margin` zeros on each side, the last anchor moves to `averagedness`."""

    copies: int
    margin: int
    averagedness: float

    @staticmethod
    def between(old: DenoiserArchitecture, new: DenoiserArchitecture) -> Growth:
        """What leads from one architecture to the other.

        Raises
        ------
        ValueError : they differ in more than blocks (to a multiple), kernel size (to a larger one) and averagedness.
        """
        changed = [f"{n} {getattr(old, n)} -> {getattr(new, n)}" for n in FIXED if getattr(old, n) != getattr(new, n)]
        margin, rest = divmod(new.kernel_size - old.kernel_size, 2)
        # at scale 2 some sizes run as polyphase convolutions, with kernels of another shape
        alike = old.scale != 2 or (old.kernel_size - new.kernel_size) % 4 == 0
        if changed or new.blocks % old.blocks or margin < 0 or rest or not (old.anchored and alike):
            raise ValueError(
                f"cannot grow {old.blocks} blocks with kernels of {old.kernel_size} to {new.blocks} with {new.kernel_size}: "
                "blocks must be a multiple, kernels larger by an even number (at scale 2 from 7 to 11, 15, ...), the blocks "
                "anchored, the rest the same" + (f"; different: {', '.join(changed)}" if changed else "")
            )
        return Growth(new.blocks // old.blocks, margin, new.averagedness)

    def log_scales(self, log_scales: Tensor) -> Tensor:
        """Thresholds (blocks, ...) divided among the copies."""
        return (log_scales - math.log(self.copies)).repeat_interleave(self.copies, 0)

    def anchors(self, weights: Tensor) -> Tensor:
        """Logits of anchor weights that compose to `weights` (blocks, knots), the last above its floor."""
        anchors = 1 - (1 - weights).pow(1 / self.copies).repeat_interleave(self.copies, 0)
        floor = 1 - self.averagedness
        anchors[-1] = ((anchors[-1] - floor) / (1 - floor)).clamp(min=1e-3)
        return torch.logit(anchors, eps=1e-6)

    def kernel(self, weight: Tensor) -> Tensor:
        """The same kernel with zeros around."""
        return functional.pad(weight, [self.margin] * 4)


def reach(anchors: Tensor) -> Tensor:
    """r_k = product of 1 - a_j over j >= k, (blocks, knots): how much of what block k does is in the output."""
    return (1 - anchors).flip(0).cumprod(0).flip(0)


def shares(log_scales: Tensor, slopes: Tensor, anchors: Tensor) -> Tensor:
    """Of what large features lose in all, the part that each block takes, (blocks, knots), on the mean over features.

    Beyond its last knot a spline of scale t and slopes p, (blocks, features, segments), removes t sum_j p_j, and r_k of that
    reaches the output.
    """
    removed = (log_scales.exp() * slopes.sum(2)[:, None]).mean(2) * reach(anchors)
    return removed / removed.sum(0)


def merged(anchors: Tensor, kept: list[int]) -> Tensor:
    """Anchors (len(kept), knots) of the blocks that stay: each takes over those of the idle blocks behind it."""
    ends = [*kept[1:], len(anchors)]
    return torch.stack([1 - (1 - anchors[k:end]).prod(0) for k, end in zip(kept, ends, strict=True)])
