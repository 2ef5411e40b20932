"""lower_bound <= dense SVD <= upper_bound, at several image sizes, for every linear layer; and every refusal."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from stablenet.linear import Conv1d, Conv2d, Conv3d, Dense, PolyphaseConv2d
from stablenet.spectral import UnboundedError, convolution_upper_bound, lower_bound, matrix_upper_bound, upper_bound
from tests.inventory import MAPS

SLACK = 1 + 1e-9

LAYERS = {
    "linear": (lambda: nn.Linear(7, 5), [(7,)]),
    "conv1d": (lambda: nn.Conv1d(2, 3, 5, padding=2), [(2, 5), (2, 40)]),
    "conv1d-valid": (lambda: nn.Conv1d(2, 3, 4), [(2, 4), (2, 33)]),
    "conv1d-wide-padding": (lambda: nn.Conv1d(2, 3, 3, padding=5), [(2, 3), (2, 31)]),
    "conv1d-same-even": (lambda: nn.Conv1d(1, 2, 4, padding="same"), [(1, 6), (1, 40)]),
    "conv1d-stride": (lambda: nn.Conv1d(2, 5, 5, stride=3, padding=1), [(2, 7), (2, 40)]),
    "conv1d-stride-beyond-kernel": (lambda: nn.Conv1d(2, 3, 2, stride=3), [(2, 9), (2, 40)]),
    "conv1d-stride-dilation-2-2": (lambda: nn.Conv1d(1, 1, 3, stride=2, dilation=2, padding=2), [(1, 9), (1, 40)]),
    "conv1d-stride-dilation-4-6": (lambda: nn.Conv1d(1, 2, 3, stride=4, dilation=6, padding=6), [(1, 15), (1, 90)]),
    "conv1d-stride-dilation-2-3": (lambda: nn.Conv1d(1, 2, 3, stride=2, dilation=3, padding=3), [(1, 15), (1, 60)]),
    "conv1d-circular": (lambda: nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), [(2, 3), (2, 7), (2, 32)]),
    "conv1d-circular-small": (lambda: nn.Conv1d(1, 2, 5, padding=2, padding_mode="circular"), [(1, 2), (1, 3), (1, 4)]),
    "conv1d-circular-odd-stride": (
        lambda: nn.Conv1d(1, 2, 3, stride=2, padding=1, padding_mode="circular"),
        [(1, 3), (1, 9), (1, 15)],
    ),
    "conv1d-circular-short-padding": (lambda: nn.Conv1d(1, 2, 5, padding=1, padding_mode="circular"), [(1, 6), (1, 21)]),
    "conv1d-circular-same-even": (lambda: nn.Conv1d(1, 2, 4, padding="same", padding_mode="circular"), [(1, 5), (1, 20)]),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3, padding=1), [(2, 3, 4), (2, 10, 9)]),
    "conv2d-pointwise": (lambda: nn.Conv2d(3, 4, 1), [(3, 2, 3)]),
    "conv2d-even": (lambda: nn.Conv2d(2, 2, 2, padding=1), [(2, 5, 5), (2, 11, 9)]),
    "conv2d-oblong": (lambda: nn.Conv2d(1, 3, (1, 5), padding=(0, 2)), [(1, 4, 9)]),
    "conv2d-stride": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), [(2, 7, 6), (2, 11, 12)]),
    "conv2d-stride-oblong": (lambda: nn.Conv2d(1, 3, 3, stride=(1, 3), padding=1), [(1, 7, 10)]),
    "conv2d-stride-dilation": (lambda: nn.Conv2d(1, 1, 3, stride=2, dilation=(2, 3), padding=2), [(1, 17, 16)]),
    "conv2d-groups": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), [(4, 8, 7)]),
    "conv2d-depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1), [(4, 8, 7)]),
    "conv2d-dilation": (lambda: nn.Conv2d(2, 3, 3, dilation=2, padding=2), [(2, 10, 11)]),
    "conv2d-circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), [(2, 3, 4), (2, 9, 8)]),
    "conv2d-circular-odd-stride": (
        lambda: nn.Conv2d(1, 3, 3, stride=2, padding=1, padding_mode="circular"),
        [(1, 7, 9), (1, 8, 8)],
    ),
    "conv3d": (lambda: nn.Conv3d(1, 2, 3, padding=1), [(1, 4, 5, 6)]),
    "conv3d-stride": (lambda: nn.Conv3d(1, 2, 3, stride=2, padding=1), [(1, 5, 6, 7)]),
    "transposed1d": (lambda: nn.ConvTranspose1d(3, 2, 4, stride=2, padding=1), [(3, 9), (3, 30)]),
    "transposed1d-dilation": (lambda: nn.ConvTranspose1d(2, 2, 3, stride=2, dilation=2, output_padding=1), [(2, 7), (2, 30)]),
    "transposed2d": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), [(2, 5, 6)]),
    "transposed2d-groups": (lambda: nn.ConvTranspose2d(4, 2, 3, groups=2), [(4, 6, 5)]),
    "transposed3d": (lambda: nn.ConvTranspose3d(1, 2, 3, stride=2), [(1, 3, 4, 3)]),
    **{f"our-{name}": (make, [shape]) for name, (make, shape) in MAPS.items()},
}


def dense(module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """The matrix of the linear part, column by column, in float64."""
    module = module.double()
    size = math.prod(shape)
    with torch.no_grad():
        offset = module(torch.zeros(1, *shape, dtype=torch.float64))
        return (module(torch.eye(size, dtype=torch.float64).reshape(size, *shape)) - offset).flatten(1).T


def true_norm(module: nn.Module, shape: tuple[int, ...]) -> float:
    return float(torch.linalg.matrix_norm(dense(module, shape), 2))


@pytest.mark.parametrize("name", LAYERS)
def test_sandwich(name):
    make, shapes = LAYERS[name]
    for kind in ("random", "ones"):
        module = make()
        with torch.no_grad():
            nn.init.ones_(module.weight) if kind == "ones" else nn.init.normal_(module.weight)
        above = upper_bound(module)
        for shape in shapes:
            truth = true_norm(module, shape)
            below = lower_bound(module, input_shape=shape, tolerance=1e-9)
            assert below <= truth * SLACK
            assert truth <= above, (kind, shape)
            assert below >= 0.98 * truth
    assert lower_bound(module) <= above


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("axes", [1, 2])
def test_within_one_percent_for_kernels_of_three(axes, seed):
    """The symbol on a grid of 512 points an axis is the norm on a circular image of that size: a truth to compare with."""
    torch.manual_seed(seed)
    weight = torch.randn(5, 3, *[3] * axes, dtype=torch.float64)
    symbol = torch.fft.fftn(weight, s=[512] * axes, dim=list(range(2, 2 + axes))).flatten(2).permute(2, 0, 1)
    truth = float(torch.linalg.eigvalsh(symbol.mH @ symbol).max().sqrt())
    bound = convolution_upper_bound(weight)
    assert truth <= bound <= 1.01 * truth


@pytest.mark.parametrize("name", ["conv2d", "conv2d-stride", "transposed2d", "conv2d-stride-dilation", "our-polyphase"])
def test_bound_is_tight_on_large_images(name):
    make, shapes = LAYERS[name]
    module = make()
    with torch.no_grad():
        nn.init.normal_(module.weight)
    shape = (shapes[0][0], *[80] * (len(shapes[0]) - 1))
    assert upper_bound(module) <= 1.02 * lower_bound(module, input_shape=shape, tolerance=1e-7)


def test_the_norm_grows_with_the_image_and_the_bound_covers_it():
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.constant_(conv.weight, 1 / 9)
    norms = [true_norm(conv, (1, n, n)) for n in (2, 4, 8, 16)]
    assert norms == sorted(norms)
    assert norms[-1] > 2 * norms[0]
    assert norms[-1] <= upper_bound(conv) <= 1.01
    flattened = float(torch.linalg.matrix_norm(conv.weight.flatten(1), 2))
    assert flattened < 0.4  # the peers' reshaped kernel: no bound at all


def test_known_norms():
    assert matrix_upper_bound(torch.diag(torch.tensor([3.0, -4.0]))) == pytest.approx(4, rel=1e-9)
    difference = nn.Conv1d(1, 1, 2, bias=False)
    with torch.no_grad():
        difference.weight.copy_(torch.tensor([[[-1.0, 1.0]]]))
    assert 2 <= upper_bound(difference) <= 2.01


def test_orthogonal_and_rank_deficient_matrices():
    q = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64))[0]
    assert 1 <= matrix_upper_bound(q) <= 1 + 1e-9
    outer = torch.outer(torch.ones(30), torch.ones(50))
    assert math.sqrt(1500) <= matrix_upper_bound(outer) <= math.sqrt(1500) * (1 + 1e-9)


@pytest.mark.parametrize("channels", [1, 2, 17, 48])
def test_flat_symbols_do_not_fool_the_pruning(channels):
    """All frequencies alike (a delta kernel): no pruning helps, and the norm is the matrix's."""
    matrix = torch.randn(channels, channels, dtype=torch.float64)
    weight = torch.zeros(channels, channels, 3, 3, dtype=torch.float64)
    weight[:, :, 1, 1] = matrix
    truth = float(torch.linalg.matrix_norm(matrix, 2))
    assert truth <= convolution_upper_bound(weight) <= 1.01 * truth


def test_degenerate_top_singular_values():
    """An orthogonal kernel: the power method has no gap; the bound must still close in."""
    q = torch.linalg.qr(torch.randn(32, 32, dtype=torch.float64))[0]
    weight = torch.zeros(32, 32, 3, dtype=torch.float64)
    weight[:, :, 0] = q
    assert 1 <= convolution_upper_bound(weight) <= 1.01


def test_one_frequency_far_above_the_rest():
    """A sharp peak between grid points is what the Riesz factor pays for."""
    for shift in (0.1, 0.37, 1.234):
        taps = torch.cos(shift * torch.arange(7, dtype=torch.float64))
        weight = torch.outer(taps, taps).reshape(1, 1, 7, 7)
        truth = float(torch.fft.fft2(weight, s=(1024, 1024)).abs().max())
        assert truth <= convolution_upper_bound(weight) <= 1.012 * truth


def test_single_precision_pruning_is_sound_for_ill_scaled_channels():
    generator = torch.Generator().manual_seed(0)
    for exponent in (-30, -8, 8, 30):
        weight = torch.randn(6, 6, 3, 3, dtype=torch.float64, generator=generator)
        weight[0] *= 10.0**exponent
        symbol = torch.fft.fft2(weight, s=(64, 64)).flatten(2).permute(2, 0, 1)
        assert float(torch.linalg.matrix_norm(symbol, 2).max()) <= convolution_upper_bound(weight)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
@pytest.mark.parametrize("make", [lambda: nn.Conv2d(2, 3, 3, padding=1), lambda: nn.Linear(7, 5), lambda: Dense(4, 5)])
def test_scale_invariance(make, scale):
    module = make().double()
    above, below = upper_bound(module), lower_bound(module)
    with torch.no_grad():
        module.weight.mul_(scale)
    assert upper_bound(module) == pytest.approx(scale * above, rel=1e-9)
    assert lower_bound(module) == pytest.approx(scale * below, rel=1e-6)


@pytest.mark.parametrize("name", ["linear", "conv1d", "conv2d-stride", "transposed2d", "our-dense", "our-polyphase"])
def test_zero_weights_have_norm_zero(name):
    module = LAYERS[name][0]()
    nn.init.zeros_(module.weight)
    assert upper_bound(module) == 0
    assert lower_bound(module) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["linear", "conv1d", "transposed2d", "our-conv2d", "our-polyphase"])
def test_nan_and_infinity_are_refused(name, value):
    module = LAYERS[name][0]()
    with torch.no_grad():
        module.weight.flatten()[1] = value
    for bound in (upper_bound, lower_bound):
        with pytest.raises(ValueError, match="NaN or infinity"):
            bound(module)


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_other_paddings_are_refused(mode):
    with pytest.raises(UnboundedError, match=mode):
        upper_bound(nn.Conv2d(1, 1, 3, padding=1, padding_mode=mode))
    with pytest.raises(ValueError, match="no norm bound"):
        Conv2d(1, 1, 3, padding_mode=mode)


def test_circular_padding_wider_than_the_reach_is_refused():
    conv = nn.Conv1d(1, 1, 3, padding=3, padding_mode="circular")
    with pytest.raises(UnboundedError, match="wider"):
        upper_bound(conv)
    ours = Conv1d(1, 1, 3, padding_mode="circular")
    ours.padding = 3
    with pytest.raises(UnboundedError, match="wider"):
        upper_bound(ours)


def test_a_changed_tap_table_is_refused():
    polyphase = PolyphaseConv2d(1, 1, 3)
    polyphase.index.fill_(4)
    with pytest.raises(UnboundedError, match="tap table"):
        upper_bound(polyphase)


class Doubled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "module",
    [
        Doubled(1, 1, 3),
        parametrizations.spectral_norm(nn.Linear(3, 3)),
        parametrizations.weight_norm(nn.Conv2d(2, 2, 3)),
        nn.BatchNorm2d(3),
        nn.Bilinear(2, 2, 2),
    ],
    ids=lambda module: type(module).__name__,
)
def test_unknown_classes_are_refused(module):
    with pytest.raises(UnboundedError, match=type(module).__name__):
        upper_bound(module)
    with pytest.raises(UnboundedError):
        lower_bound(module)


@pytest.mark.parametrize("excess", [0.0, 1.0, -0.1, math.nan])
def test_bad_excess(excess):
    with pytest.raises(ValueError, match="excess"):
        convolution_upper_bound(torch.ones(1, 1, 3), excess=excess)


def test_bad_shapes():
    with pytest.raises(ValueError, match="at least 3 axes"):
        convolution_upper_bound(torch.ones(3, 3))
    with pytest.raises(ValueError, match="empty"):
        matrix_upper_bound(torch.ones(0, 3))
    with pytest.raises(ValueError, match="tolerance"):
        lower_bound(nn.Linear(2, 2), tolerance=0.0)


def test_lower_bound_is_repeatable_and_warm_starts():
    conv = nn.Conv2d(3, 4, 3, padding=1)
    assert lower_bound(conv) == lower_bound(conv)
    _, singular_values, v = torch.linalg.svd(dense(conv, (3, 8, 8)), full_matrices=False)
    warm = lower_bound(conv, start=v[0].reshape(1, 3, 8, 8), max_iterations=2)
    assert warm == pytest.approx(float(singular_values[0]), rel=1e-9)


@given(
    axes=st.integers(1, 2),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    groups=st.integers(1, 2),
    extra=st.tuples(st.integers(0, 6), st.integers(0, 5)),
    transposed=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=120)
def test_random_shapes(axes, channels, kernel, stride, dilation, padding, groups, extra, transposed, seed):
    torch.manual_seed(seed)
    inputs, outputs = (groups * c for c in channels)
    cut = {"stride": stride[:axes], "dilation": dilation[:axes]}
    cls = getattr(nn, f"Conv{'Transpose' if transposed else ''}{axes}d")
    sizes = [d * (k - 1) + 1 + e for d, k, e in zip(dilation, kernel, extra, strict=True)][:axes]
    if not transposed:
        cut["padding"] = padding[:axes]
    else:
        sizes = [min(n, 6) for n in sizes]
    module = cls(inputs, outputs, kernel[:axes], groups=groups, bias=False, **cut)
    if seed % 3 == 0:
        nn.init.ones_(module.weight)
    truth = true_norm(module, (inputs, *sizes))
    assert truth <= upper_bound(module) * SLACK
    assert lower_bound(module, input_shape=(inputs, *sizes)) <= truth * SLACK


@given(
    n=st.integers(3, 12),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    mode=st.sampled_from(["zeros", "circular"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_random_maps_of_ours(n, kernel, stride, dilation, mode, seed):
    torch.manual_seed(seed)
    module = Conv1d(2, 3, kernel, stride=stride, dilation=dilation, padding_mode=mode)
    n = max(n, module.padding)
    assert true_norm(module, (2, n)) <= upper_bound(module) * SLACK


def test_three_axes_stay_within_two_percent():
    conv = Conv3d(2, 2, 3)
    weight = conv.weight.detach().double()
    symbol = torch.fft.fftn(weight, s=(64, 64, 64), dim=(2, 3, 4)).flatten(2).permute(2, 0, 1)
    truth = float(torch.linalg.matrix_norm(symbol, 2).max())
    assert truth <= upper_bound(conv) <= 1.025 * truth
