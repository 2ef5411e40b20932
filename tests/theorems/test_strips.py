"""Without gradients a block runs strip by strip: the same map as with them, whatever the height of a strip."""

from __future__ import annotations

import pytest
import torch

from stablenet import tableaus
from stablenet.activations import LinearSpline
from stablenet.blocks import GradientFlow, flow
from stablenet.linear import in_strips, strips
from stablenet.networks import Denoiser, DenoiserArchitecture
from tests.inventory import ARCHITECTURES, MAPS

IMAGES = [name for name, (_, shape) in MAPS.items() if len(shape) == 3]


@pytest.mark.parametrize("strip_size", [1, 200, 2**19])
@pytest.mark.parametrize("name", IMAGES)
def test_a_block_by_strips_is_the_block(name, strip_size, monkeypatch):
    monkeypatch.setattr(strips, "STRIP_SIZE", strip_size)
    make, shape = MAPS[name]
    block = GradientFlow(make(), LinearSpline(1, segments=3), tableau=tableaus.HEUN).double().eval()
    torch.nn.init.normal_(block.bias)
    for height in (shape[1], 1, 2, 31):
        x = torch.randn(2, shape[0], height, shape[2], dtype=torch.float64)
        scale = 0.1 + torch.rand(2, 1, 1, 1, dtype=torch.float64)
        plain = block(x, scale).detach()
        with torch.no_grad():
            torch.testing.assert_close(block(x, scale), plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", IMAGES)
def test_strips_are_taken_where_they_are_valid(name, monkeypatch):
    """Strided, dilated, grouped and circular maps keep the plain path; the others never hold all their features."""
    make, shape = MAPS[name]
    block = GradientFlow(make(), torch.nn.ReLU()).eval()
    monkeypatch.setattr(strips, "STRIP_SIZE", 1)
    heights = []
    block.activation.register_forward_pre_hook(lambda module, inputs: heights.append(inputs[0].shape[2]))
    with torch.no_grad():
        block(torch.randn(1, shape[0], 30, 30))
    valid = block.linear.strips is not None
    assert valid == (name in ("conv2d", "polyphase", "polyphase-7"))
    assert (max(heights) <= 2) == valid


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_denoiser_by_strips_is_the_denoiser(name, monkeypatch):
    monkeypatch.setattr(strips, "STRIP_SIZE", 500)
    denoiser = Denoiser(ARCHITECTURES[name]).double().eval()
    x, sigma = torch.rand(2, denoiser.channels, 33, 20, dtype=torch.float64), torch.tensor([0.02, 0.15])
    with torch.no_grad():
        restored = denoiser(x, sigma)
    torch.testing.assert_close(restored, denoiser(x, sigma).detach(), rtol=1e-12, atol=1e-12)


def test_a_scale_for_each_row_keeps_the_plain_path():
    block = GradientFlow(MAPS["conv2d"][0](), LinearSpline(1, segments=3), bias=False).double().eval()
    x = torch.randn(1, 2, 40, 9, dtype=torch.float64)
    scale = torch.linspace(0.1, 1, 40, dtype=torch.float64)[:, None]
    with torch.no_grad():
        torch.testing.assert_close(block(x, scale), block(x.requires_grad_(), scale).detach(), rtol=1e-12, atol=1e-12)


def test_a_frozen_network_runs_in_strips_unless_its_input_wants_a_gradient(monkeypatch):
    taken = []
    monkeypatch.setattr(flow, "in_strips", lambda *a, **k: taken.append(1) or in_strips(*a, **k))
    network = Denoiser(DenoiserArchitecture(features=8, blocks=1, max_noise_level=0.2)).requires_grad_(False).eval()
    x = torch.rand(1, 1, 20, 22, generator=torch.Generator().manual_seed(0))
    frozen = network(x, 0.1)
    assert taken and not frozen.requires_grad
    taken.clear()
    recorded = network(x.requires_grad_(True), 0.1)
    assert not taken and recorded.requires_grad and torch.allclose(recorded, frozen, atol=1e-6)
    recorded.sum().backward()
    assert float(x.grad.norm()) > 0
