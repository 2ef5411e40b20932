"""What stands between blocks: isometric lifts and their adjoints, MaxMin, norm-1 pooling; nothing here learns.

Source: conjugation E^T T E with E^T E = I keeps averagedness (docs/theorems.md, C3); MaxMin is [Anil2019].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet.certificate import NONEXPANSIVE, CertificateTree, NotCertified, rule


@dataclass(frozen=True)
class IsometricLift:
    """E: (batch, channels, height, width) -> zero-pad to a multiple of `scale`, pixel-unshuffle, add zero channels.

    E^T E = I exactly; `adjoint` is E^T. Both only move entries or insert and drop zeros.

    Raises
    ------
    ValueError : scale < 1 or extra_channels < 0.
    """

    scale: int = 1
    extra_channels: int = 0

    def __post_init__(self) -> None:
        if self.scale < 1 or self.extra_channels < 0:
            raise ValueError(f"scale must be >= 1 and extra_channels >= 0, got {self.scale} and {self.extra_channels}")

    def __call__(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        rows, columns = -height % self.scale, -width % self.scale
        if rows or columns:
            x = functional.pad(x, (0, columns, 0, rows))
        if self.scale > 1:
            x = functional.pixel_unshuffle(x, self.scale)
        return functional.pad(x, (0, 0, 0, 0, 0, self.extra_channels)) if self.extra_channels else x

    def adjoint(self, y: Tensor, size: tuple[int, int]) -> Tensor:
        """E^T y for an image of `size` (height, width)."""
        y = y[:, : y.shape[1] - self.extra_channels] if self.extra_channels else y
        y = functional.pixel_shuffle(y, self.scale) if self.scale > 1 else y
        return y[..., : size[0], : size[1]]


class ZeroChannelLift(nn.Module):
    """(batch, channels, ...) -> (batch, outputs, ...): zero channels are appended, an isometry."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        missing = self.outputs - x.shape[1]
        if missing < 0:
            raise ValueError(f"ZeroChannelLift({self.outputs}) cannot take {x.shape[1]} channels: it never drops any")
        return torch.cat([x, x.new_zeros(x.shape[0], missing, *x.shape[2:])], 1)


class ChannelTruncation(nn.Module):
    """(batch, channels, ...) -> the first `outputs` channels, the adjoint of `ZeroChannelLift`."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] < self.outputs:
            raise ValueError(f"ChannelTruncation({self.outputs}) needs at least as many channels, got {x.shape[1]}")
        return x[:, : self.outputs]


class MaxMin(nn.Module):
    """(batch, channels, ...) -> the same: channels k and k + channels/2 become their maximum and minimum. [Anil2019]

    Two entries sorted at each point, hence nonexpansive and norm-preserving. It is not elementwise, so that it stands
    between blocks and never inside one.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] % 2:
            raise ValueError(f"MaxMin pairs channels: their number must be even, got {x.shape[1]}")
        first, second = x.chunk(2, 1)
        if torch.is_grad_enabled() and x.requires_grad:
            return torch.cat(_Sort.apply(first, second), 1)
        return torch.cat([torch.maximum(first, second), torch.minimum(first, second)], 1)


class _Sort(torch.autograd.Function):
    """(maximum, minimum), whose gradient goes to where each came from: half the time of differentiating both apart."""

    @staticmethod
    def forward(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return torch.maximum(first, second), torch.minimum(first, second)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        first, second = inputs
        ctx.save_for_backward((first >= second).to(first.dtype))

    @staticmethod
    def backward(ctx: Any, largest: Tensor, smallest: Tensor) -> tuple[Tensor, Tensor]:
        (kept,) = ctx.saved_tensors  # 0 or 1, at which lerp is exact
        return torch.lerp(smallest, largest, kept), torch.lerp(largest, smallest, kept)


class NormPool2d(nn.Module):
    """(batch, channels, height, width) -> height and width divided by `size`: sums over size x size cells, divided by size.

    Its rows are orthonormal, so that the Lipschitz constant is 1 and attained; the ordinary mean wastes a factor `size`.
    Rows and columns beyond a multiple of `size` are refused rather than dropped.
    """

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"size must be an integer of at least 1, got {size!r}")
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2] % self.size or x.shape[-1] % self.size:
            raise ValueError(f"NormPool2d({self.size}) needs a multiple of {self.size}, got {x.shape[-2]} x {x.shape[-1]}")
        return functional.avg_pool2d(x, self.size) * self.size  # torch's ONNX writer drops a divisor_override


@rule(MaxMin)
def _certify_maxmin(module: nn.Module) -> CertificateTree:
    return CertificateTree("MaxMin", NONEXPANSIVE, "two entries sorted")


@rule(NormPool2d)
def _certify_pool(module: NormPool2d) -> CertificateTree:
    if type(module.size) is not int or module.size < 1:
        raise NotCertified(f"NormPool2d with size {module.size!r} has no proof")
    return CertificateTree("NormPool2d", NONEXPANSIVE, "orthonormal rows")


@rule(ZeroChannelLift, ChannelTruncation)
def _certify(module: nn.Module) -> CertificateTree:
    return CertificateTree(type(module).__name__, NONEXPANSIVE, "zeros are added or entries dropped")
