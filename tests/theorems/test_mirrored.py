"""A bank closed under flips on a mirrored image has the norm bound of the convolution, at every size (docs/theorems.md, N4)."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from stablenet import spectral
from stablenet.linear import cells
from stablenet.linear.mirrored import MirroredConv2d, extended, extended_adjoint

SIZES = [(1, 1), (2, 7), (5, 4), (9, 9)]


def dense(function, shape):
    eye = torch.eye(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.stack([function(e.view(1, *shape)).flatten() for e in eye], 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("inputs, kernel_size", [(1, 5), (2, 3)])
def test_the_bound_holds_at_every_size_and_is_nearly_reached(size, inputs, kernel_size):
    torch.manual_seed(0)
    module = MirroredConv2d(inputs, 3, kernel_size).double()
    largest = torch.linalg.matrix_norm(dense(module, (inputs, *size)), 2)
    assert largest <= spectral.upper_bound(module)
    assert spectral.lower_bound(module, input_shape=(inputs, 24, 24)) > 0.97 * spectral.upper_bound(module)


def test_without_flips_the_bound_would_be_wrong():
    """A shift by one pixel has norm 1, but a mirrored border shows its pixel twice: why the flips are in the bank."""
    kernel = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    kernel[0, 0, 1, 0] = 1
    alone = dense(lambda x: functional.conv2d(extended(x, 1, (1, 1)), kernel), (1, 1, 2))
    assert torch.linalg.matrix_norm(alone, 2) > 1.4 * spectral.convolution_upper_bound(kernel) / 1.01


@pytest.mark.parametrize("size", SIZES)
def test_the_adjoint_is_the_transpose(size):
    torch.manual_seed(0)
    module = MirroredConv2d(2, 3, 5).double()
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    y = torch.randn_like(module(x))
    assert torch.allclose((module(x) * y).sum(), (x * module.adjoint(y)).sum())
    wide = torch.randn_like(extended(x, 2, (3, 4)))
    assert torch.allclose((extended(x, 2, (3, 4)) * wide).sum(), (x * extended_adjoint(wide, size, 2, (3, 4))).sum())


@pytest.mark.parametrize("kernel_size", [3, 5, 7, 9])
def test_cells_compute_the_convolution(kernel_size):
    torch.manual_seed(0)
    kernel = torch.randn(3, 2, kernel_size, kernel_size, dtype=torch.float64)
    q, matrix = cells.taps(kernel_size), cells.product_matrix(kernel)
    wide = torch.randn(2, 2, 2 * (q + 3), 2 * (q + 5), dtype=torch.float64)
    found = cells.features(wide, matrix, kernel_size)
    rows, columns = 2 * found.shape[1], 2 * found.shape[2]
    pixels = functional.pixel_shuffle(found.permute(0, 4, 3, 1, 2).flatten(1, 2), 2)
    assert torch.allclose(pixels, functional.conv2d(wide, kernel)[:, :, :rows, :columns], atol=1e-12)
    y = torch.randn_like(found)
    assert torch.allclose((found * y).sum(), (wide * cells.features_adjoint(y, matrix, kernel_size)).sum())
