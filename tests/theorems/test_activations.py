"""Every activation is nondecreasing with slopes in its interval, and the forms of the spline agree."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import stablenet
from stablenet.activations import Clamp, LinearSpline, fuse, perspective, slope_interval, smoothness
from stablenet.blocks import GradientFlow
from stablenet.linear import Dense
from tests.inventory import ACTIVATIONS

CHANNELS = 3
GRID = torch.cat([torch.linspace(-60, 60, 40001), torch.linspace(-1e-3, 1e-3, 2001)]).double().sort().values


def make(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    module = ACTIVATIONS[name](CHANNELS).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(2 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_slopes_lie_in_the_interval(name, seed):
    module = make(name, seed)
    low, high = slope_interval(module)
    u = GRID.unique()[:, None].expand(-1, CHANNELS).contiguous()
    with torch.no_grad():
        secants = module(u).diff(dim=0) / u.diff(dim=0)
    assert low >= 0
    assert float(secants.min()) >= low - 1e-6
    assert float(secants.max()) <= high + 1e-6
    leaf = u.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(module(leaf).sum(), leaf)
    assert float(slopes.min()) >= low - 1e-12
    assert float(slopes.max()) <= high + 1e-12
    assert smoothness(module) == high


@pytest.mark.parametrize("name", ["relu", "leaky", "leaky-steep", "elu", "softplus", "tanh", "sigmoid", "hardtanh", "clamp"])
def test_the_largest_slope_is_attained(name):
    module = ACTIVATIONS[name](CHANNELS).double()
    leaf = GRID[:, None].repeat(1, CHANNELS).requires_grad_()
    (slopes,) = torch.autograd.grad(module(leaf).sum(), leaf)
    assert float(slopes.max()) == pytest.approx(smoothness(module), rel=1e-4)


@pytest.mark.parametrize("name", [*ACTIVATIONS, "leaky-negative"])
def test_averagedness_as_a_map(name):
    """|r|^2 <= 2 alpha <r, d> coordinate by coordinate, and the Lipschitz constant."""
    module = nn.LeakyReLU(-0.5) if name == "leaky-negative" else make(name)
    certificate = stablenet.certify(module).certificate
    u = GRID.unique()[:, None].expand(-1, CHANNELS).contiguous()
    with torch.no_grad():
        moved, d = module(u).diff(dim=0), u.diff(dim=0)
    assert float((moved.abs() - certificate.lipschitz * d).max()) <= 1e-12
    if certificate.averagedness is not None:
        rest = d - moved
        assert float((rest.square() - 2 * certificate.averagedness * rest * d).max()) <= 1e-12


def test_published_certificates():
    assert stablenet.certify(nn.ReLU()).averagedness == 0.5
    assert stablenet.certify(nn.Sigmoid()).lipschitz == 0.25
    assert stablenet.certify(nn.LeakyReLU(0.5)).averagedness == 0.25
    assert stablenet.certify(nn.LeakyReLU(2.0)).averagedness is None
    assert stablenet.certify(nn.LeakyReLU(2.0)).lipschitz == 2
    assert stablenet.certify(nn.ELU(-3.0)).lipschitz == 3


@given(st.integers(1, 8) | st.integers(24, 26), st.integers(0, 99), st.floats(0.01, 100))
@settings(max_examples=40)
def test_spline_forms_agree(segments, seed, scale):
    """The formula sign(u) sum_j p_j clamp(|u| - j, 0, 1), the look-up table and the differentiated form."""
    torch.manual_seed(seed)
    spline = LinearSpline(CHANNELS, segments=segments).double()
    nn.init.normal_(spline.logits, std=4)
    u = scale * segments * torch.randn(5, CHANNELS, 4, dtype=torch.float64)
    u[0, :, 0] = 0.0
    u[1, :, 0] = scale * segments
    u[2, :, 0] = -scale * (segments - 1)
    v = u / scale
    slopes = torch.sigmoid(spline.logits)[None, :, None, :]
    knots = torch.arange(segments, dtype=torch.float64)
    expected = scale * v.sign() * (slopes * (v.abs()[..., None] - knots).clamp(0, 1)).sum(-1)
    size = torch.tensor([[[scale]]], dtype=torch.float64)
    torch.testing.assert_close(spline(u, size), expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(spline(u, size), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("segments", [3, 30])
@pytest.mark.parametrize(
    "shape", [(), (1, 1, 1, 1), (1, 6, 1, 1), (2, 6, 1, 1), (2, 1, 1, 1), (5, 7), (2, 6, 5, 7), (1, 6, 5, 1)]
)
def test_spline_takes_a_scale_of_any_shape(shape, segments):
    """One for all, for each image, feature, row or pixel: without gradients the same values as with them, u is left alone."""
    spline = LinearSpline(CHANNELS, segments=segments).double()
    u = segments * torch.randn(2, 2 * CHANNELS, 5, 7, dtype=torch.float64)
    scale, before = 0.1 + 2 * torch.rand(shape, dtype=torch.float64), u.clone()
    with torch.no_grad():
        torch.testing.assert_close(spline(u, scale), spline(u.requires_grad_(), scale).detach(), rtol=1e-12, atol=1e-12)
    assert torch.equal(u, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("per_image", [True, False])
def test_fused_spline_agrees_and_has_the_same_gradients(dtype, layout, per_image):
    spline = LinearSpline(CHANNELS).to(dtype)
    u = (3 * torch.randn(2, 2 * CHANNELS, 5, 7, dtype=dtype)).contiguous(memory_format=layout).requires_grad_()
    scale = (torch.rand(2, 2 * CHANNELS, 1, 1) + 0.1 if per_image else torch.tensor(0.7)).to(dtype).requires_grad_()
    inputs, results = (u, scale, spline.logits), []
    for enabled in (False, True):
        fuse(spline, enabled)
        try:
            value = spline(u, scale)
        except Exception as error:  # no C++ compiler on this machine
            pytest.skip(f"torch.compile is not available: {type(error).__name__}")
        results.append((value.detach(), *torch.autograd.grad(value.square().sum(), inputs)))
    for eager, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, eager, rtol=1e-5, atol=2e-6)


def test_spline_is_odd_and_flat_outside():
    spline = make("spline")
    u = torch.linspace(0, 10, 101).double()[:, None].expand(-1, CHANNELS)
    torch.testing.assert_close(spline(-u), -spline(u), rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(spline(-u), -spline(u), rtol=0, atol=0)
        outside = spline(torch.tensor([[4.0, 4.0, 4.0], [5.0, 50.0, 1e6]]).double())
    torch.testing.assert_close(outside[0], outside[1], rtol=1e-12, atol=0)
    torch.testing.assert_close(outside[0], spline.slopes.sum(1).detach(), rtol=1e-12, atol=0)


def test_spline_slopes_stay_in_range_whatever_the_logits():
    spline = LinearSpline(2)
    nn.init.constant_(spline.logits, 1e30)
    assert spline.slopes.max().item() == 1
    nn.init.constant_(spline.logits, -1e30)
    assert spline.slopes.min().item() == 0


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_perspective_keeps_the_slopes(name):
    module = make(name)
    low, high = slope_interval(module)
    u = torch.linspace(-30, 30, 5001).double()[:, None].repeat(1, CHANNELS)
    for scale in (1e-3, 0.5, 20.0):
        with torch.no_grad():
            size = torch.full((1, CHANNELS), scale, dtype=torch.float64)
            value = perspective(module, u, size)
            torch.testing.assert_close(value, scale * module(u / scale), rtol=1e-9, atol=1e-9)
        secants = value.diff(dim=0) / u.diff(dim=0)
        assert float(secants.min()) >= low - 1e-9
        assert float(secants.max()) <= high + 1e-9
    assert perspective(module, u, None).equal(module(u))


@pytest.mark.parametrize("module", [nn.GELU(), nn.SiLU(), nn.Mish(), nn.PReLU(), nn.Softmax(1), nn.Tanhshrink()])
def test_unknown_activations_are_refused_by_name(module):
    with pytest.raises(stablenet.NotCertified, match=f"{type(module).__name__}.*ReLU"):
        GradientFlow(Dense(2, 2), module)


@pytest.mark.parametrize("module", [nn.LeakyReLU(-0.1), nn.ELU(-0.5)])
def test_decreasing_activations_are_refused_in_a_block(module):
    with pytest.raises(stablenet.NotCertified, match="nondecreasing"):
        GradientFlow(Dense(2, 2), module)


@pytest.mark.parametrize("module", [nn.Softplus(threshold=1.0), nn.Softplus(beta=-1.0)])
def test_softplus_that_jumps_is_refused(module):
    with pytest.raises(stablenet.NotCertified, match="threshold"):
        stablenet.certify(module)


def test_a_low_softplus_threshold_does_jump():
    softplus = nn.Softplus(threshold=1.0).double()
    below, above = softplus(torch.tensor([1.0 - 1e-9, 1.0 + 1e-9], dtype=torch.float64))
    assert float(above) < float(below) - 0.3


def test_bad_sizes_are_refused():
    for make_bad in (
        lambda: Clamp(0),
        lambda: Clamp(2, threshold=0.0),
        lambda: LinearSpline(0),
        lambda: LinearSpline(1, segments=0),
    ):
        with pytest.raises(ValueError, match="needs channels"):
            make_bad()
    for module in (Clamp(3), LinearSpline(3)):
        with pytest.raises(ValueError, match="3 channels"):
            module(torch.zeros(1, 4))
        module(torch.zeros(1, 6))
