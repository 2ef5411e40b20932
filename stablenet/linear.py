"""Linear maps with an exact adjoint and norm bounds: dense, convolutions in one to three axes, polyphase convolutions.

Source: adjoints are transposed convolutions (docs/theorems.md, N3); the norm bounds are `stablenet.spectral`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet import spectral
from stablenet.certificate import Certificate, CertificateTree, rule

PADDINGS = ("zeros", "circular")
STRIP_SIZE = 2**19
"""Features of a strip in `in_strips`: a few of them fit a core's caches."""


class Dense(nn.Module):
    """x -> x W^T, (batch, inputs) to (batch, outputs), without bias (a block adds its own)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        _positive(inputs=inputs, outputs=outputs)
        self.inputs, self.outputs = inputs, outputs
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.orthogonal_(self.weight)

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        return functional.linear(x, self.weight if weight is None else weight, bias)

    def adjoint(self, y: Tensor, size: Sequence[int] | None = None, weight: Tensor | None = None) -> Tensor:
        return functional.linear(y, (self.weight if weight is None else weight).T)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of an input, batch excluded, on which the norm is tracked in training."""
        return (self.inputs,)


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
        _positive(inputs=inputs, outputs=outputs, kernel_size=kernel_size, stride=stride, dilation=dilation, groups=groups)
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

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        weight = self.weight if weight is None else weight
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[self.axes - 1]
        padding = self.padding
        if self.padding_mode == "circular":
            x, padding = functional.pad(x, [padding] * (2 * self.axes), mode="circular"), 0
        return convolve(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def adjoint(self, y: Tensor, size: Sequence[int] | None = None, weight: Tensor | None = None) -> Tensor:
        """A^T y; `size` is the spatial size of the input of A, needed when stride > 1."""
        weight = self.weight if weight is None else weight
        transpose = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[self.axes - 1]
        size = list(y.shape[2:]) if size is None and self.stride == 1 else size
        if size is None:
            raise ValueError(f"the adjoint of a convolution with stride={self.stride} needs the size of its input")
        if self.padding_mode == "zeros":
            extra = self._missing(y, size, self.padding)
            return transpose(y, weight, None, self.stride, self.padding, extra, self.groups, self.dilation)
        padded = [n + 2 * self.padding for n in size]
        wide = transpose(y, weight, None, self.stride, 0, self._missing(y, padded, 0), self.groups, self.dilation)
        return _fold_circular(wide, self.padding, size)

    def _missing(self, y: Tensor, size: Sequence[int], padding: int) -> list[int]:
        reach = self.dilation * (self.kernel_size - 1)
        return [n - ((m - 1) * self.stride - 2 * padding + reach + 1) for n, m in zip(size, y.shape[2:], strict=True)]

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of an input, batch excluded, on which the norm is tracked in training."""
        side = {1: 128, 2: 32, 3: 16}[self.axes]
        return (self.inputs, *[max(side, 2 * self.dilation * self.kernel_size)] * self.axes)


class Conv1d(_Convolution):
    """A convolution (batch, inputs, n) -> (batch, outputs, n / stride), zero or circular padding, odd kernel, no bias."""

    axes = 1


class Conv2d(_Convolution):
    """A convolution (batch, inputs, height, width) -> (batch, outputs, height / stride, width / stride), no bias."""

    axes = 2


class Conv3d(_Convolution):
    """A convolution over three spatial axes, zero or circular padding, odd kernel, no bias."""

    axes = 3


class PolyphaseConv2d(nn.Module):
    """A stride-1, zero-padded convolution of an image that is held pixel-unshuffled by 2.

    The same operator as `Conv2d(inputs, outputs, kernel_size)` on the image itself, up to a shift of the hidden
    features, but with four channels for one: 2-3 times faster where `inputs` is small. kernel_size = 4 n - 1, so
    that the polyphase kernel has (k + 1)/2 taps an axis.

    (batch, 4 inputs, height/2, width/2) -> (batch, 4 outputs, height/2 + 1, width/2 + 1), channels in pixel_unshuffle's order.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int) -> None:
        super().__init__()
        _positive(inputs=inputs, outputs=outputs, kernel_size=kernel_size)
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

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        return functional.conv2d(x, self.polyphase_weight() if weight is None else weight, bias, padding=self.taps // 2)

    def adjoint(self, y: Tensor, size: Sequence[int] | None = None, weight: Tensor | None = None) -> Tensor:
        weight = self.polyphase_weight() if weight is None else weight
        return functional.conv_transpose2d(y, weight, padding=self.taps // 2)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of an input, batch excluded, on which the norm is tracked in training."""
        return (4 * self.inputs, max(16, self.kernel_size), max(16, self.kernel_size))


def is_plain(linear: nn.Module) -> bool:
    """Whether a map is a convolution of images with stride 1 and zero padding."""
    if type(linear) is PolyphaseConv2d:
        return True
    return type(linear) is Conv2d and linear.stride == linear.dilation == linear.groups == 1 and linear.padding_mode == "zeros"


def in_strips(x: Tensor, kernel: Tensor, bias: Tensor | None, function: Callable[[Tensor], Tensor]) -> Tensor:
    """A^T f(A x + b), f elementwise, a strip of rows at a time: A x (tens of channels for one of x) is never held as a whole.

    x (batch, inputs, height, width); kernel (outputs, inputs, k, k) of a convolution with stride 1 and k // 2 zeros around.
    """
    taps, padding = kernel.shape[-1], kernel.shape[-1] // 2
    wide = functional.pad(x, (0, 0, padding, padding)).contiguous(memory_format=torch.channels_last)
    result = torch.zeros_like(wide)
    rows = wide.shape[2] - taps + 1
    step = max(2, STRIP_SIZE // (len(x) * kernel.shape[0] * x.shape[3]))
    for top in range(0, rows, step):
        strip = slice(top, min(top + step, rows) + taps - 1)
        features = function(functional.conv2d(wide[:, :, strip], kernel, bias, padding=(0, padding)))
        result[:, :, strip] += functional.conv_transpose2d(features, kernel, padding=(0, padding))
    return result[:, :, padding : padding + x.shape[2]]


def _fold_circular(wide: Tensor, padding: int, size: Sequence[int]) -> Tensor:
    """The adjoint of circular padding: what was copied out is added back."""
    for axis, n in enumerate(size, start=2):
        centre = wide.narrow(axis, padding, n).clone()
        if padding:
            centre.narrow(axis, n - padding, padding).add_(wide.narrow(axis, 0, padding))
            centre.narrow(axis, 0, padding).add_(wide.narrow(axis, padding + n, padding))
        wide = centre
    return wide


def _positive(**values: int) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}")


def _bound_convolution(module: _Convolution) -> float:
    circular = module.padding_mode == "circular"
    if circular and 2 * module.padding > module.dilation * (module.kernel_size - 1):
        raise spectral.UnboundedError(f"circular padding {module.padding} is wider than the kernel's reach: outputs repeat")
    return spectral.convolution_upper_bound(
        module.weight, stride=module.stride, dilation=module.dilation, groups=module.groups, circular=circular
    )


def _bound_polyphase(module: PolyphaseConv2d) -> float:
    if not torch.equal(module.index.cpu(), module._index()):
        raise spectral.UnboundedError("the tap table of a PolyphaseConv2d was changed: build the module anew")
    return spectral.convolution_upper_bound(module.weight)


def _as_function(module: nn.Module):
    import copy

    return copy.deepcopy(module).double().requires_grad_(False), module.example_shape


for _cls in (Conv1d, Conv2d, Conv3d):
    spectral.UPPER[_cls] = _bound_convolution
spectral.UPPER[Dense] = lambda module: spectral.matrix_upper_bound(module.weight)
spectral.UPPER[PolyphaseConv2d] = _bound_polyphase
MAPS = (Dense, Conv1d, Conv2d, Conv3d, PolyphaseConv2d)
for _cls in MAPS:
    spectral.LINEAR[_cls] = _as_function


@rule(*spectral.UPPER)
def _certify_linear(module: nn.Module) -> CertificateTree:
    bound = spectral.upper_bound(module)
    return CertificateTree(type(module).__name__, Certificate(bound), f"spectral norm <= {bound:.6g}")
