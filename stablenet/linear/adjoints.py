"""Adjoints: of circular padding, and of a convolution with many outputs and few inputs, faster than `conv_transpose2d`.

Source: docs/theorems.md, N3. A transposed convolution that writes one to a dozen channels leaves a processor's vectors nearly
empty; here the columns of the kernel are channels too, and what they wrote is added up, shifted, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def turned(kernel: Tensor) -> Tensor:
    """(outputs, inputs, rows, columns) -> (inputs columns, outputs, rows, 1): what `fold_product` convolves with."""
    outputs, inputs, rows, columns = kernel.shape
    return kernel.flip(2).permute(1, 3, 0, 2).reshape(inputs * columns, outputs, rows, 1)


def fold_product(features: Tensor, kernel: Tensor, *, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """A^T y for y = features and A x = conv2d(x, kernel, padding=padding), stride 1: conv_transpose2d's value.

    features (batch, outputs, height, width), fastest in channels_last; kernel (outputs, inputs, rows, columns); padding of
    rows and columns. Returns (batch, inputs, height + rows - 1 - 2 padding[0], width + columns - 1 - 2 padding[1]).
    """
    return folded(functional.conv2d(features, turned(kernel), padding=(kernel.shape[2] - 1, 0)), kernel.shape[3], padding)


def folded(parts: Tensor, columns: int, padding: tuple[int, int]) -> Tensor:
    """sum_j of part j shifted by j columns, parts (batch, inputs columns, height, width), less what padding cuts off."""
    height, width = parts.shape[2], parts.shape[3] + columns - 1 - 2 * padding[1]
    summed = functional.fold(parts.flatten(2), (height, width), (1, columns), padding=(0, padding[1]))
    return summed[:, :, padding[0] : height - padding[0]]


def fold_circular(wide: Tensor, padding: tuple[int, int], size: Sequence[int]) -> Tensor:
    """The adjoint of circular padding: what was copied out is added back.

    wide (batch, channels, *(n + sum(padding))), padding before and after, at most n; returns (batch, channels, *size).
    """
    before, after = padding
    for axis, n in enumerate(size, start=2):
        centre = wide.narrow(axis, before, n).clone()
        if before:
            centre.narrow(axis, n - before, before).add_(wide.narrow(axis, 0, before))
        if after:
            centre.narrow(axis, 0, after).add_(wide.narrow(axis, before + n, after))
        wide = centre
    return wide
