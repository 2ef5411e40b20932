"""<A x, y> = <x, A^T y> for every map at every size, and the polyphase form equals the convolution of the image."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from stablenet.interlayers import ChannelTruncation, IsometricLift, ZeroChannelLift
from stablenet.linear import Conv1d, Conv2d, PolyphaseConv2d
from tests.inventory import MAPS


def assert_adjoint(linear: nn.Module, shape: tuple[int, ...]) -> None:
    linear = linear.double()
    x = torch.randn(2, *shape, dtype=torch.float64)
    image = linear(x)
    y = torch.randn_like(image)
    back = linear.adjoint(y, shape[1:])
    assert back.shape == x.shape
    left, right = (image * y).sum(), (x * back).sum()
    torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11 * float(image.norm() * y.norm()))


@pytest.mark.parametrize("name", MAPS)
def test_adjoint(name):
    make, shape = MAPS[name]
    assert_adjoint(make(), shape)
    assert_adjoint(make(), (shape[0], *[n + 3 for n in shape[1:]]))


@pytest.mark.parametrize("name", MAPS)
def test_adjoint_is_the_gradient(name):
    make, shape = MAPS[name]
    linear = make().double()
    x = torch.randn(1, *shape, dtype=torch.float64, requires_grad=True)
    image = linear(x)
    y = torch.randn_like(image)
    (gradient,) = torch.autograd.grad(image, x, y)
    torch.testing.assert_close(linear.adjoint(y, shape[1:]), gradient, rtol=1e-11, atol=1e-11)


@given(
    height=st.integers(4, 15),
    width=st.integers(4, 15),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    groups=st.integers(1, 2),
    mode=st.sampled_from(["zeros", "circular"]),
)
@settings(max_examples=80)
def test_adjoint_at_random_sizes(height, width, kernel, stride, dilation, groups, mode):
    linear = Conv2d(2 * groups, groups, kernel, stride=stride, dilation=dilation, groups=groups, padding_mode=mode)
    assert_adjoint(linear, (2 * groups, height, width))


def test_a_strided_adjoint_needs_the_size():
    with pytest.raises(ValueError, match="stride=2"):
        Conv1d(1, 1, 3, stride=2).adjoint(torch.zeros(1, 1, 4))


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 2), (3, 2)])
def test_polyphase_is_the_convolution_of_the_image(kernel, inputs, outputs):
    """Every output of the plain convolution occurs among the polyphase ones, and inner ones at one fixed shift."""
    polyphase = PolyphaseConv2d(inputs, outputs, kernel).double()
    image = torch.randn(1, inputs, 18, 22, dtype=torch.float64)
    hidden = functional.pixel_shuffle(polyphase(functional.pixel_unshuffle(image, 2)), 2)
    full = functional.conv2d(image, polyphase.weight, padding=kernel)
    surplus = [(big - small) // 2 for big, small in zip(full.shape[2:], hidden.shape[2:], strict=True)]
    candidates = [
        full[..., i : i + hidden.shape[2], j : j + hidden.shape[3]]
        for i in range(2 * surplus[0] + 1)
        for j in range(2 * surplus[1] + 1)
    ]
    distance = min(float((hidden - part).abs().max()) for part in candidates)
    assert distance < 1e-12


@pytest.mark.parametrize("kernel", [3, 7])
def test_polyphase_normal_operator_is_that_of_the_convolution(kernel):
    """A^T A, all that a block sees of the shift, agrees away from the boundary."""
    polyphase, plain = PolyphaseConv2d(1, 3, kernel).double(), Conv2d(1, 3, kernel).double()
    plain.weight = polyphase.weight
    image = torch.randn(1, 1, 40, 36, dtype=torch.float64)
    theirs = plain.adjoint(plain(image))
    ours = functional.pixel_shuffle(polyphase.adjoint(polyphase(functional.pixel_unshuffle(image, 2))), 2)
    inner = (..., slice(kernel, -kernel), slice(kernel, -kernel))
    torch.testing.assert_close(ours[inner], theirs[inner], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("size", [(6, 8), (7, 5), (1, 1)])
@pytest.mark.parametrize(("scale", "extra"), [(1, 0), (2, 0), (1, 3), (2, 2), (4, 1)])
def test_lift_is_an_isometry_and_its_adjoint_undoes_it(scale, extra, size):
    lift = IsometricLift(scale, extra)
    x, y = (torch.randn(2, 3, *size, dtype=torch.float64) for _ in range(2))
    image = lift(x)
    torch.testing.assert_close(lift.adjoint(image, size), x, rtol=0, atol=0)
    torch.testing.assert_close(image.norm(), x.norm(), rtol=1e-12, atol=0)
    z = torch.randn_like(image)
    torch.testing.assert_close((lift(y) * z).sum(), (y * lift.adjoint(z, size)).sum(), rtol=1e-11, atol=1e-11)


def test_channel_lift_and_truncation_are_adjoint():
    up, down = ZeroChannelLift(5), ChannelTruncation(2)
    x: Tensor = torch.randn(3, 2, 4)
    y = torch.randn(3, 5, 4)
    torch.testing.assert_close((up(x) * y).sum(), (x * down(y)).sum())
    with pytest.raises(ValueError, match="never drops"):
        up(torch.zeros(1, 6, 2))
    with pytest.raises(ValueError, match="at least as many"):
        down(torch.zeros(1, 1, 2))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Conv2d(1, 1, 4), "odd"),
        (lambda: Conv2d(3, 2, 3, groups=2), "groups=2"),
        (lambda: Conv2d(0, 2, 3), "positive"),
        (lambda: PolyphaseConv2d(1, 1, 5), "3, 7, 11"),
        (lambda: IsometricLift(0), "scale"),
        (lambda: IsometricLift(1, -1), "extra_channels"),
    ],
)
def test_bad_maps_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()
