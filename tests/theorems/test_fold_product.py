"""The adjoint by folding is the transposed convolution: for every kernel, padding, precision and layout, and its gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from stablenet.linear import fold_product

side = st.integers(1, 5)


@given(
    batch=st.integers(0, 2), outputs=side, inputs=side, rows=side, columns=side, height=st.integers(1, 9), width=side, cut=side
)
@settings(max_examples=100, deadline=None)
def test_it_is_the_transposed_convolution(batch, outputs, inputs, rows, columns, height, width, cut):
    generator = torch.Generator().manual_seed(7)
    features = torch.randn(batch, outputs, height, width, dtype=torch.float64, generator=generator)
    kernel = torch.randn(outputs, inputs, rows, columns, dtype=torch.float64, generator=generator)
    padding = min(cut, (height + rows - 2) // 2), min(cut, (width + columns - 2) // 2)
    expected = functional.conv_transpose2d(features, kernel, padding=padding)
    torch.testing.assert_close(fold_product(features, kernel, padding=padding), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_in_each_precision_and_layout(dtype, layout):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 48, 9, 11, generator=generator).to(dtype, memory_format=layout)
    kernel = torch.randn(48, 4, 4, 5, generator=generator).to(dtype, memory_format=layout)
    found = fold_product(features, kernel, padding=(1, 2))
    expected = functional.conv_transpose2d(features.double(), kernel.double(), padding=(1, 2))
    assert found.dtype == dtype
    size = functional.conv_transpose2d(features.double().abs(), kernel.double().abs(), padding=(1, 2))
    inner, outer = 48 * 4 * torch.finfo(dtype if dtype == torch.float64 else torch.float32).eps, 6 * torch.finfo(dtype).eps
    assert ((found.double() - expected).abs() <= (inner + outer) * size).all()


def test_its_gradients_are_those_of_the_transposed_convolution():
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(3, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y, k: fold_product(y, k, padding=(1, 1)), (features, kernel))
    assert torch.autograd.gradgradcheck(lambda y, k: fold_product(y, k, padding=(1, 1)), (features, kernel))
