"""In training the gradient lies in the constraint: the plane wave is the symbol's peak, scaling the weight has no slope."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import stablenet
from stablenet import spectral
from stablenet.blocks import GradientFlow
from stablenet.enforcement import Rescale, Step
from stablenet.linear import Conv2d, Dense, PolyphaseConv2d
from stablenet.networks import Denoiser, DenoiserArchitecture
from stablenet.spectral import symbols

KERNELS = [(5, 1, 3), (48, 1, 7), (3, 2, 5), (9, 3, 7), (6, 4, 3)]


@pytest.mark.parametrize("shape", KERNELS, ids=str)
def test_the_peak_lies_between_the_sampled_symbol_and_the_certified_bound(shape):
    outputs, inputs, side = shape
    kernel = torch.randn(outputs, inputs, side, side, generator=torch.Generator().manual_seed(outputs), dtype=torch.float64)
    symbol = torch.fft.fft2(kernel, s=(32, 32)).permute(2, 3, 0, 1)
    dense = float(torch.linalg.svdvals(symbol).max())
    found = float(symbols.gain(kernel, symbols.peak(kernel)))
    assert found >= dense * (1 - 1e-3)
    bound = spectral.convolution_upper_bound(kernel)
    assert bound * (1 - 0.015) <= found <= bound


MAPS = {
    "polyphase": lambda: PolyphaseConv2d(1, 6, 7),
    "polyphase-color": lambda: PolyphaseConv2d(3, 6, 3),
    "conv-symbol": lambda: Conv2d(4, 6, 3),
    "conv-tracked": lambda: Conv2d(6, 6, 3),
    "conv-circular": lambda: Conv2d(2, 6, 3, padding_mode="circular"),
    "dense": lambda: Dense(9, 6),
}


def example(block: GradientFlow) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, *block.linear.example_shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", MAPS)
def test_scaling_a_weight_at_its_limit_has_no_slope(name):
    torch.manual_seed(0)
    block = GradientFlow(MAPS[name](), nn.Tanh(), policy=Rescale(), bias=False).double()
    with torch.no_grad():
        block.linear.weight.mul_(10)
    stablenet.enforce(block.train())
    block(example(block)).square().sum().backward()
    weight = block.linear.weight
    slope = float((weight.grad * weight.detach()).sum()) / float(weight.grad.norm() * weight.detach().norm())
    assert abs(slope) < 1e-9
    assert float(weight.grad.norm()) > 0


def test_below_the_limit_and_under_other_policies_the_gradient_is_the_plain_one():
    for policy, factor in ((Rescale(), 0.01), (Step(), 1.0)):
        torch.manual_seed(0)
        block = GradientFlow(Conv2d(2, 5, 3), nn.Tanh(), policy=policy, bias=False).double()
        with torch.no_grad():
            block.linear.weight.mul_(factor)
        stablenet.enforce(block.train())
        x = example(block)
        block(x).square().sum().backward()
        weight = block.linear.weight.detach().clone().requires_grad_()
        u = nn.functional.conv2d(x, weight, padding=1)
        y = x - block.schedule.step_size * nn.functional.conv_transpose2d(torch.tanh(u), weight, padding=1)
        y.square().sum().backward()
        torch.testing.assert_close(block.linear.weight.grad, weight.grad)


def test_the_gradient_is_that_of_the_normalized_weight():
    torch.manual_seed(0)
    block = GradientFlow(Conv2d(1, 4, 3), nn.Tanh(), policy=Rescale(), bias=False).double()
    with torch.no_grad():
        block.linear.weight.mul_(10)
    stablenet.enforce(block.train())
    x, limit = example(block), math.sqrt(block.z_max)
    block(x).square().sum().backward()
    raw = block.linear.weight.detach().clone().requires_grad_()
    symbol = torch.fft.fft2(raw, s=(128, 128)).abs().square().sum((0, 1)).max().sqrt()
    weight = raw * (limit / symbol)
    u = nn.functional.conv2d(x, weight, padding=1)
    (x - nn.functional.conv_transpose2d(torch.tanh(u), weight, padding=1)).square().sum().backward()
    plain, found = raw.grad, block.linear.weight.grad
    assert float((found - plain).norm()) < 2e-2 * float(plain.norm())


@pytest.mark.parametrize(
    "architecture",
    [
        DenoiserArchitecture(blocks=1),
        DenoiserArchitecture(blocks=1, features=24),
        DenoiserArchitecture(blocks=1, features=100, kernel_size=5),
        DenoiserArchitecture(blocks=1, channels=3, features=96),
    ],
    ids=["7x7", "5x5 in 7x7", "unshuffled", "color"],
)
def test_the_first_kernels_waste_little_at_any_frequency_but_the_lowest(architecture):
    torch.manual_seed(0)
    network = Denoiser(architecture)
    flow = network.blocks[0]
    assert flow.z <= flow.z_max * 1.03
    x = torch.randn(1, architecture.channels, 48, 48, generator=torch.Generator().manual_seed(0))
    x = x - torch.nn.functional.avg_pool2d(x, 9, 1, 4)
    lifted = network.lift(x)
    with torch.no_grad():
        gain = float((flow.linear(lifted).square().sum()) / lifted.square().sum())
    assert gain > 0.8 * flow.z_max


def test_a_trained_block_stays_certified_after_scaled_steps():
    torch.manual_seed(0)
    network = Denoiser(DenoiserArchitecture(features=8, kernel_size=3, blocks=2))
    optimizer = torch.optim.Adam(network.parameters(), 1e-1)
    stablenet.attach(optimizer, network)
    for _ in range(5):
        optimizer.zero_grad()
        network(torch.rand(2, 1, 16, 16), 0.1).square().sum().backward()
        optimizer.step()
    tree = stablenet.certify(network.eval())
    assert tree.certificate.is_averaged and tree.lipschitz <= 1
