"""A convolution as one over cells of 2 x 2 pixels, and its transpose: for few inputs and many outputs.

Source: docs/theorems.md, N3. A kernel of k x k taps on c channels sees 4 c channels of a cell through (k + 1)/2 x (k + 1)/2
or, k = 4 n + 1, (k + 3)/2 x (k + 3)/2 taps and gives all features of the cell's four pixels: rows long enough for a processor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from stablenet.linear.adjoints import folded, turned
from stablenet.linear.spreading import one_thread_a_kernel, spread

HALF = (torch.bfloat16, torch.float16)
STRIP_SIZE = 2**20
"""Features of a strip in `in_cell_strips`, about, which a product wants large."""
PIECE_SIZE = 2**16
"""Features of a piece, about, which has to stay in a core's cache while an elementwise function sweeps over it."""


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
    """(batch, rows, columns, 4, outputs) of cells: conv2d of `wide` as one of its cells, of wide's precision.

    wide (batch, inputs, 2 (rows + taps - 1), 2 (columns + taps - 1)): the image with all that its kernels see.
    A matrix in half precision is taken to be of kernels without mean: then what it sees is rounded as differences from the
    mean of the cell in the middle, and no feature holds the rounding of an image's brightness.
    """
    cells = functional.pixel_unshuffle(wide, 2).contiguous(memory_format=torch.channels_last)
    if matrix.dtype in HALF:
        found = _product(cells.permute(0, 2, 3, 1).contiguous(), matrix, taps(kernel_size)).to(wide.dtype)
    else:
        found = functional.conv2d(cells, _kernel(matrix, kernel_size)).permute(0, 2, 3, 1).contiguous()
    return found.unflatten(3, (4, -1))


def _product(cells: Tensor, matrix: Tensor, q: int) -> Tensor:
    """The features of `cells` less their brightness, in half precision."""
    batch, rows, columns, channels = len(cells), cells.shape[1] - q + 1, cells.shape[2] - q + 1, cells.shape[3]
    a, b, c, d = cells.stride()
    seen = cells.as_strided((batch, rows, columns, q, q, channels), (a, b, c, b, c, d))
    middle = cells[:, q // 2 : q // 2 + rows, q // 2 : q // 2 + columns]
    seen = (seen - _brightness(middle)[:, :, :, None, None]).to(matrix.dtype)
    return (seen.reshape(batch * rows * columns, q * q * channels) @ matrix.T).view(batch, rows, columns, -1)


def _brightness(cells: Tensor) -> Tensor:
    """(batch, rows, columns, 4 inputs) -> the same, each pixel the mean of its cell's four."""
    mean = cells.unflatten(-1, (-1, 4)).mean(-1, keepdim=True)
    return mean.expand(*mean.shape[:-1], 4).flatten(-2)


def features_adjoint(values: Tensor, matrix: Tensor, kernel_size: int) -> Tensor:
    """The transpose of `features` for one matrix: an image of wide's shape, its columns added in the precision of `values`."""
    q = taps(kernel_size)
    channels_last = values.flatten(3).permute(0, 3, 1, 2).to(matrix.dtype)
    parts = functional.conv2d(channels_last, turned(_kernel(matrix, kernel_size)), padding=(q - 1, 0))
    return functional.pixel_shuffle(folded(parts.to(values.dtype), q, (0, 0)), 2)


def _kernel(matrix: Tensor, kernel_size: int) -> Tensor:
    """(4 outputs, 4 inputs, taps, taps): the matrix as a kernel on cells."""
    q = taps(kernel_size)
    return matrix.reshape(len(matrix), q, q, -1).permute(0, 3, 1, 2)


def in_cell_strips(
    wide: Tensor, matrix: Tensor, kernel_size: int, function: Callable[[slice, Tensor], Tensor], size: tuple[int, int]
) -> Tensor:
    """A^T f(A x), f elementwise, a strip of cells at a time on several threads; of `wide`'s shape.

    function(rows, features) -> features, f(0) = 0, features (batch, rows, columns, 4, outputs) of these rows of cells, a few
    at a time, which it may change in place; those outside of an image of odd size are zero. The strips are added in their
    order, whichever ends first.
    """
    q, (height, width) = taps(kernel_size), size
    rows, outputs = wide.shape[2] // 2 - q + 1, matrix.shape[0]
    row = len(wide) * outputs * (wide.shape[3] // 2)
    step, height_of_piece = max(2, STRIP_SIZE // row), max(1, PIECE_SIZE // row)
    tops = [*range(0, rows, step), rows]
    parts: list[Tensor] = [wide[:0]] * (len(tops) - 1)

    def work(index: int) -> None:
        top, end = tops[index], tops[index + 1]
        found = features(wide[:, :, 2 * top : 2 * (end + q - 1)], matrix, kernel_size)
        if 2 * end > height:
            found[:, -1, :, 2:] = 0
        if 2 * found.shape[2] > width:
            found[:, :, -1, 1::2] = 0
        for first in range(top, end, height_of_piece):
            piece = found[:, first - top : first - top + height_of_piece]
            piece.copy_(function(slice(first, min(end, first + height_of_piece)), piece))
        parts[index] = features_adjoint(found, matrix, kernel_size)

    with one_thread_a_kernel():
        spread(work, len(parts))
    total = torch.zeros_like(wide)
    for top, part in zip(tops, parts, strict=False):
        total[:, :, 2 * top : 2 * top + part.shape[2]] += part
    return total
