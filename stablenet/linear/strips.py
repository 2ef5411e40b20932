"""A^T f(A x + b) of a convolution, a strip of rows at a time: the features are never held as a whole.

Source: the adjoint of a convolution is the transposed convolution (docs/theorems.md, N3).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet.linear.convolution import Conv2d
from stablenet.linear.polyphase import PolyphaseConv2d

STRIP_SIZE = 2**19
"""Features of a strip in `in_strips`: a few of them fit a core's caches."""


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
