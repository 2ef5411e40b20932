"""Convolutions in one to three axes with exact adjoints and norm bounds, zero or circular padding.

Source: docs/theorems.md, N1 and N3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet import spectral
from stablenet.linear.adjoints import fold_circular
from stablenet.linear.protocol import Strips, Tracker, block_map, in_double, require_positive
from stablenet.linear.tracking import Power, symbol_tracker
from stablenet.spectral.bounds import linear_function
from stablenet.spectral.layers import require_shape
from stablenet.spectral.power import LinearFunction

PADDINGS = ("zeros", "circular")


class _Convolution(nn.Module):
    """What the convolutions share; the classes below differ in their number of axes and are final."""

    axes: int

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        require_positive(
            inputs=inputs, outputs=outputs, kernel_size=kernel_size, stride=stride, dilation=dilation, groups=groups
        )
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        if inputs % groups or outputs % groups:
            raise ValueError(f"groups={groups} must divide inputs={inputs} and outputs={outputs}")
        if padding_mode not in PADDINGS:
            raise ValueError(f"padding_mode must be one of {PADDINGS}, got {padding_mode!r}: no norm bound is proved for it")
        self.inputs, self.outputs, self.kernel_size = inputs, outputs, kernel_size
        self.stride, self.dilation, self.groups, self.padding_mode = stride, dilation, groups, padding_mode
        self.padding = dilation * (kernel_size // 2)
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, *[kernel_size] * self.axes))
        nn.init.normal_(self.weight, std=1 / math.sqrt(inputs // groups * kernel_size**self.axes))

    def forward(self, x: Tensor, kernel: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        kernel = self.weight if kernel is None else kernel
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[self.axes - 1]
        padding = self.padding
        if self.padding_mode == "circular":
            x, padding = functional.pad(x, [padding] * (2 * self.axes), mode="circular"), 0
        return convolve(x, kernel, bias, self.stride, padding, self.dilation, self.groups)

    def adjoint(self, y: Tensor, size: Sequence[int] | None = None, kernel: Tensor | None = None) -> Tensor:
        """A^T y; `size` is the spatial size of the input of A, needed when stride > 1."""
        kernel = self.weight if kernel is None else kernel
        transpose = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[self.axes - 1]
        size = list(y.shape[2:]) if size is None and self.stride == 1 else size
        if size is None:
            raise ValueError(f"the adjoint of a convolution with stride={self.stride} needs the size of its input")
        if self.padding_mode == "zeros":
            extra = self._missing(y, size, self.padding)
            return transpose(y, kernel, None, self.stride, self.padding, extra, self.groups, self.dilation)
        padded = [n + 2 * self.padding for n in size]
        wide = transpose(y, kernel, None, self.stride, 0, self._missing(y, padded, 0), self.groups, self.dilation)
        return fold_circular(wide, (self.padding, self.padding), size)

    def _missing(self, y: Tensor, size: Sequence[int], padding: int) -> list[int]:
        reach = self.dilation * (self.kernel_size - 1)
        return [n - ((m - 1) * self.stride - 2 * padding + reach + 1) for n, m in zip(size, y.shape[2:], strict=True)]

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of an input, batch excluded, on which the norm is tracked in training."""
        side = {1: 128, 2: 32, 3: 16}[self.axes]
        return (self.inputs, *[max(side, 2 * self.dilation * self.kernel_size)] * self.axes)

    @property
    def strips(self) -> Strips | None:
        plain = self.stride == self.dilation == self.groups == 1 and self.padding_mode == "zeros"
        return Strips(self.kernel_size, self.padding) if plain and self.axes == 2 else None

    def kernel(self, weight: Tensor) -> Tensor:
        return weight

    def expand(self, values: Tensor) -> Tensor:
        return values

    def tracker(self) -> Tracker:
        return Power(self) if self.strips is None else symbol_tracker(self)


class Conv1d(_Convolution):
    """A convolution (batch, inputs, n) -> (batch, outputs, n / stride), zero or circular padding, odd kernel, no bias."""

    axes = 1


class Conv2d(_Convolution):
    """A convolution (batch, inputs, height, width) -> (batch, outputs, height / stride, width / stride), no bias."""

    axes = 2


class Conv3d(_Convolution):
    """A convolution over three spatial axes, zero or circular padding, odd kernel, no bias."""

    axes = 3


@block_map(Conv1d, Conv2d, Conv3d)
def _map(module: _Convolution) -> _Convolution:
    return module


@spectral.bound(Conv1d, Conv2d, Conv3d)
def _bound(module: _Convolution) -> float:
    kernel = (module.kernel_size,) * module.axes
    require_shape(module, module.weight, (module.outputs, module.inputs // module.groups, *kernel))
    circular = module.padding_mode == "circular"
    if circular and 2 * module.padding > module.dilation * (module.kernel_size - 1):
        raise spectral.UnboundedError(f"circular padding {module.padding} is wider than the kernel's reach: outputs repeat")
    if module.padding != module.dilation * (module.kernel_size // 2):
        raise spectral.UnboundedError(
            f"{type(module).__name__} has padding {module.padding} where kernel_size={module.kernel_size} and "
            f"dilation={module.dilation} say {module.dilation * (module.kernel_size // 2)}: build the module anew"
        )
    return spectral.convolution_upper_bound(
        module.weight, stride=module.stride, dilation=module.dilation, groups=module.groups, circular=circular
    )


@linear_function(Conv1d, Conv2d, Conv3d)
def _function(module: _Convolution) -> tuple[LinearFunction, tuple[int, ...]]:
    return in_double(module), module.example_shape
