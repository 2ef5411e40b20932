"""A convolution as one matrix product over cells of 2 x 2 pixels, and its transpose: for few inputs and many outputs.

Source: docs/theorems.md, N3. A kernel of k x k taps on c channels sees 4 c channels of a cell through (k + 1)/2 x (k + 1)/2
or, k = 4 n + 1, (k + 3)/2 x (k + 3)/2 taps and gives all features of the cell's four pixels: rows long enough for a processor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from stablenet.linear.spreading import one_thread_a_kernel, spread

HALF = (torch.bfloat16, torch.float16)
STRIP_SIZE = 2**20
"""Features of a strip in `in_cell_strips`."""


def taps(kernel_size: int) -> int:
    """How many cells a kernel spans along an axis."""
    return kernel_size // 2 + 1


def product_matrix(kernel: Tensor) -> Tensor:
    """(4 outputs, taps taps 4 inputs): features of a cell, by pixel and output, from the cells around it.

    kernel (outputs, inputs, k, k), differentiable.
    """
    outputs, inputs, size, _ = kernel.shape
    padded = functional.pad(kernel.flatten(2), (0, 1))
    spread = padded[:, :, _index(size, kernel.device)]  # outputs, inputs, pixel, phase, q, q
    return spread.permute(2, 0, 4, 5, 1, 3).reshape(4 * outputs, -1)


@lru_cache(maxsize=16)
def _index(size: int, device: torch.device) -> Tensor:
    """Where tap (q, phase) seen from a pixel of the cell is in the kernel: 2 q + phase - pixel; size^2 (a zero) if outside."""
    with torch.inference_mode(False):  # kept, and used in training too
        phase, tap = torch.arange(2), torch.arange(taps(size))
        line = 2 * tap[None, None, :] + phase[None, :, None] - phase[:, None, None]
        rows, columns = line[:, None, :, None, :, None], line[None, :, None, :, None, :]
        outside = (rows < 0) | (rows >= size) | (columns < 0) | (columns >= size)
        return torch.where(outside, size * size, rows * size + columns).reshape(4, 4, taps(size), taps(size)).to(device)


def features(wide: Tensor, matrix: Tensor, kernel_size: int) -> Tensor:
    """(batch, rows, columns, 4, outputs) of cells: conv2d of `wide` by a product with `matrix`, of wide's precision.

    wide (batch, inputs, 2 (rows + taps - 1), 2 (columns + taps - 1)): the image with all that its kernels see.
    A matrix in half precision is taken to be of kernels without mean: then what it sees is rounded as differences from the
    mean of the cell in the middle, and no feature holds the rounding of an image's brightness.
    """
    q, batch = taps(kernel_size), len(wide)
    cells = functional.pixel_unshuffle(wide, 2).permute(0, 2, 3, 1).contiguous()
    rows, columns, channels = cells.shape[1] - q + 1, cells.shape[2] - q + 1, cells.shape[3]
    a, b, c, d = cells.stride()
    seen = cells.as_strided((batch, rows, columns, q, q, channels), (a, b, c, b, c, d))
    if matrix.dtype in HALF:
        middle = cells[:, q // 2 : q // 2 + rows, q // 2 : q // 2 + columns]
        seen = (seen - _brightness(middle)[:, :, :, None, None]).to(matrix.dtype)
    product = seen.reshape(batch * rows * columns, q * q * channels) @ matrix.T
    return product.view(batch, rows, columns, 4, -1).to(wide.dtype)


def _brightness(cells: Tensor) -> Tensor:
    """(batch, rows, columns, 4 inputs) -> the same, each pixel the mean of its cell's four."""
    mean = cells.unflatten(-1, (-1, 4)).mean(-1, keepdim=True)
    return mean.expand(*mean.shape[:-1], 4).flatten(-2)


def features_adjoint(values: Tensor, matrix: Tensor, kernel_size: int) -> Tensor:
    """The transpose of `features` for one matrix: an image of wide's shape, added up in the precision of `values`."""
    q = taps(kernel_size)
    batch, rows, columns = values.shape[:3]
    parts = (values.reshape(batch * rows * columns, -1).to(matrix.dtype) @ matrix).view(batch, rows, columns, q, q, -1)
    total = parts.new_zeros(batch, rows + q - 1, columns + q - 1, parts.shape[-1], dtype=values.dtype)
    for i in range(q):
        for j in range(q):
            total[:, i : i + rows, j : j + columns] += parts[:, :, :, i, j]
    return functional.pixel_shuffle(total.permute(0, 3, 1, 2), 2)


def in_cell_strips(
    wide: Tensor, matrix: Tensor, kernel_size: int, function: Callable[[slice, Tensor], Tensor], size: tuple[int, int]
) -> Tensor:
    """A^T f(A x), f elementwise, a strip of cells at a time on several threads; of `wide`'s shape.

    function(rows, features) -> features, f(0) = 0, features (batch, rows, columns, 4, outputs) of these rows of cells; those
    outside of an image of odd size are zero. The strips are added in their order, whichever ends first.
    """
    q, (height, width) = taps(kernel_size), size
    rows, outputs = wide.shape[2] // 2 - q + 1, matrix.shape[0]
    step = max(2, STRIP_SIZE // (len(wide) * outputs * (wide.shape[3] // 2)))
    tops = [*range(0, rows, step), rows]
    parts: list[Tensor] = [wide[:0]] * (len(tops) - 1)

    def work(index: int) -> None:
        top, end = tops[index], tops[index + 1]
        found = features(wide[:, :, 2 * top : 2 * (end + q - 1)], matrix, kernel_size)
        if 2 * end > height:
            found[:, -1, :, 2:] = 0
        if 2 * found.shape[2] > width:
            found[:, :, -1, 1::2] = 0
        parts[index] = features_adjoint(function(slice(top, end), found), matrix, kernel_size)

    with one_thread_a_kernel():
        spread(work, len(parts))
    total = torch.zeros_like(wide)
    for top, part in zip(tops, parts, strict=False):
        total[:, :, 2 * top : 2 * top + part.shape[2]] += part
    return total
