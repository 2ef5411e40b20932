"""Kernels and their flips on an image that is mirrored at its borders: no border is seen, the norm bound holds.

Source: docs/theorems.md, N4. The image mirrored about its edges (half-sample symmetry) lives on a torus of four times as many
pixels, E x with |E x|^2 = 4 |x|^2; where the kernels are closed under flips the features there are four copies of those on the
image, so that 4 |A x|^2 = |W E x|^2 <= 4 N |x|^2, N the bound of the convolution at every size (N1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet import spectral
from stablenet.linear.protocol import in_double, require_positive
from stablenet.spectral.bounds import linear_function
from stablenet.spectral.layers import require_shape
from stablenet.spectral.power import LinearFunction


def with_flips(kernels: Tensor) -> Tensor:
    """(n, ...) -> (4 n, ...): the kernels, then flipped along rows, along columns and along both."""
    return torch.cat([kernels, kernels.flip(-1), kernels.flip(-2), kernels.flip(-1, -2)])


def extended(x: Tensor, before: int, after: tuple[int, int]) -> Tensor:
    """x with rows and columns put before and after it, mirrored about its edges, as often as needed."""
    rows, columns = (_mirror(n, before, end, x.device) for n, end in zip(x.shape[-2:], after, strict=True))
    return x[..., rows, :][..., columns]


def extended_adjoint(y: Tensor, size: Sequence[int], before: int, after: tuple[int, int]) -> Tensor:
    """The transpose of `extended`: what was put around an image is added back to the pixels that it came from."""
    rows, columns = (_mirror(n, before, end, y.device) for n, end in zip(size, after, strict=True))
    narrow = y.new_zeros(*y.shape[:-2], size[0], y.shape[-1]).index_add_(-2, rows, y)
    return y.new_zeros(*y.shape[:-2], *size).index_add_(-1, columns, narrow)


@lru_cache(maxsize=64)
def _mirror(size: int, before: int, after: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # kept, and used in training too
        place = torch.arange(-before, size + after, device=device) % (2 * size)
        return torch.where(place < size, place, 2 * size - 1 - place)


class MirroredConv2d(nn.Module):
    """Correlations of a mirrored image with `filters` kernels and their flips; feature s filters + c is flip s of kernel c.

    (batch, inputs, height, width) -> (batch, 4 filters, height, width).

    Parameters
    ----------
    inputs : channels of the image.
    filters : how many kernels; each gives four features.
    kernel_size : of the kernels, odd.
    """

    def __init__(self, inputs: int, filters: int, kernel_size: int) -> None:
        super().__init__()
        require_positive(inputs=inputs, filters=filters, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        self.inputs, self.filters, self.kernel_size = inputs, filters, kernel_size
        self.weight = nn.Parameter(torch.empty(filters, inputs, kernel_size, kernel_size))
        nn.init.normal_(self.weight, std=1 / math.sqrt(4 * filters * inputs))

    @property
    def reach(self) -> int:
        """How far a kernel sees beyond a pixel."""
        return self.kernel_size // 2

    def kernel(self, weight: Tensor) -> Tensor:
        """(4 filters, inputs, k, k)."""
        return with_flips(weight)

    def forward(self, x: Tensor, kernel: Tensor | None = None) -> Tensor:
        kernel = self.kernel(self.weight) if kernel is None else kernel
        return functional.conv2d(extended(x, self.reach, (self.reach, self.reach)), kernel)

    def adjoint(self, y: Tensor, size: Sequence[int] | None = None, kernel: Tensor | None = None) -> Tensor:
        kernel = self.kernel(self.weight) if kernel is None else kernel
        wide = functional.conv_transpose2d(y, kernel)
        return extended_adjoint(wide, y.shape[-2:], self.reach, (self.reach, self.reach))


@spectral.bound(MirroredConv2d)
def _bound(module: MirroredConv2d) -> float:
    require_shape(module, module.weight, (module.filters, module.inputs, module.kernel_size, module.kernel_size))
    return spectral.convolution_upper_bound(with_flips(module.weight))


@linear_function(MirroredConv2d)
def _function(module: MirroredConv2d) -> tuple[LinearFunction, tuple[int, ...]]:
    return in_double(module), (module.inputs, 32, 32)
