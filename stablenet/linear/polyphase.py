"""A convolution of an image that is held pixel-unshuffled by 2: the same operator, four channels for one.

Source: docs/theorems.md, N1 and N3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet import spectral
from stablenet.linear.protocol import Strips, Tracker, block_map, in_double, require_positive
from stablenet.linear.tracking import symbol_tracker
from stablenet.spectral.bounds import linear_function
from stablenet.spectral.layers import require_shape
from stablenet.spectral.power import LinearFunction


class PolyphaseConv2d(nn.Module):
    """A stride-1, zero-padded convolution of an image that is held pixel-unshuffled by 2.

    The same operator as `Conv2d(inputs, outputs, kernel_size)` on the image itself, up to a shift of the hidden
    features, but with four channels for one: 2-3 times faster where `inputs` is small. kernel_size = 4 n - 1, so
    that the polyphase kernel has (k + 1)/2 taps an axis.

    (batch, 4 inputs, height/2, width/2) -> (batch, 4 outputs, height/2 + 1, width/2 + 1), channels in pixel_unshuffle's order.
    """

    index: Tensor

    def __init__(self, inputs: int, outputs: int, kernel_size: int) -> None:
        super().__init__()
        require_positive(inputs=inputs, outputs=outputs, kernel_size=kernel_size)
        if kernel_size % 4 != 3:
            raise ValueError(f"kernel_size must be 3, 7, 11, ... for a polyphase convolution, got {kernel_size}")
        self.inputs, self.outputs, self.kernel_size = inputs, outputs, kernel_size
        self.taps = (kernel_size + 1) // 2
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel_size, kernel_size))
        nn.init.normal_(self.weight, std=1 / math.sqrt(inputs * kernel_size**2))
        self.register_buffer("index", self._index(), persistent=False)

    def _index(self) -> Tensor:
        """Where tap (q, input phase c, output phase a) stands in the kernel: 2 q + c - a; k^2 (a zero) if outside."""
        k, phase, tap = self.kernel_size, torch.arange(2), torch.arange(self.taps)
        line = 2 * tap[None, None, :] + phase[None, :, None] - phase[:, None, None]  # a, c, q
        rows, columns = line[:, None, :, None, :, None], line[None, :, None, :, None, :]
        outside = (rows < 0) | (rows >= k) | (columns < 0) | (columns >= k)
        return torch.where(outside, k * k, rows * k + columns).reshape(4, 4, self.taps, self.taps)

    def polyphase_weight(self, kernel: Tensor | None = None) -> Tensor:
        """(4 outputs, 4 inputs, taps, taps): the kernel (by default `weight`) on the unshuffled image."""
        padded = functional.pad((self.weight if kernel is None else kernel).flatten(2), (0, 1))
        full = (
            padded[:, :, self.index].permute(0, 2, 1, 3, 4, 5).reshape(4 * self.outputs, 4 * self.inputs, self.taps, self.taps)
        )
        return full.contiguous(memory_format=torch.channels_last)

    def kernel(self, weight: Tensor) -> Tensor:
        return self.polyphase_weight(weight)

    def expand(self, values: Tensor) -> Tensor:
        """One for each of the four phases of an output."""
        return values.repeat_interleave(4, -1)

    def forward(self, x: Tensor, kernel: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        return functional.conv2d(x, self.polyphase_weight() if kernel is None else kernel, bias, padding=self.taps // 2)

    def adjoint(self, y: Tensor, size: Sequence[int] | None = None, kernel: Tensor | None = None) -> Tensor:
        kernel = self.polyphase_weight() if kernel is None else kernel
        return functional.conv_transpose2d(y, kernel, padding=self.taps // 2)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of an input, batch excluded, on which the norm is tracked in training."""
        return (4 * self.inputs, max(16, self.kernel_size), max(16, self.kernel_size))

    @property
    def strips(self) -> Strips:
        return Strips(self.taps, self.taps // 2)

    def tracker(self) -> Tracker:
        return symbol_tracker(self)


@block_map(PolyphaseConv2d)
def _map(module: PolyphaseConv2d) -> PolyphaseConv2d:
    return module


@spectral.bound(PolyphaseConv2d)
def _bound(module: PolyphaseConv2d) -> float:
    require_shape(module, module.weight, (module.outputs, module.inputs, module.kernel_size, module.kernel_size))
    if module.taps != (module.kernel_size + 1) // 2:
        raise spectral.UnboundedError(f"a PolyphaseConv2d of kernel_size={module.kernel_size} has no {module.taps} taps")
    if not torch.equal(module.index.cpu(), module._index()):
        raise spectral.UnboundedError("the tap table of a PolyphaseConv2d was changed: build the module anew")
    return spectral.convolution_upper_bound(module.weight)


@linear_function(PolyphaseConv2d)
def _function(module: PolyphaseConv2d) -> tuple[LinearFunction, tuple[int, ...]]:
    return in_double(module), module.example_shape
