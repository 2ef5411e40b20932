"""What certify cannot see through it refuses, naming the class; each attempt to fool it here once worked or might have."""

from __future__ import annotations

import math
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

import stablenet
from stablenet import tableaus
from stablenet.activations import Clamp
from stablenet.blocks import GradientFlow
from stablenet.butcher import ButcherTableau
from stablenet.interlayers import IsometricLift
from stablenet.linear import Conv2d, Dense, PolyphaseConv2d
from stablenet.networks import Denoiser, DenoiserArchitecture, Ridge, RidgeArchitecture


def flow(**options) -> GradientFlow:
    return GradientFlow(Dense(3, 4), nn.ReLU(), **options).eval()


def denoiser(**options) -> Denoiser:
    return Denoiser(DenoiserArchitecture(features=4, kernel_size=3, blocks=2, **options)).eval()


def refused(module: nn.Module, text: str) -> None:
    with pytest.raises(stablenet.NotCertified, match=text):
        stablenet.certify(module)


class Expanded(GradientFlow):
    def forward(self, x, scale=None):
        return 3 * super().forward(x, scale)


class ExpandedDense(Dense):
    def forward(self, x):
        return 3 * super().forward(x)


class BentReLU(nn.ReLU):
    def forward(self, x):
        return -3 * x


class ExpandedDenoiser(Denoiser):
    def forward(self, x, sigma=None):
        return 3 * super().forward(x, sigma)


class Wider(IsometricLift):
    def __call__(self, x):
        return 3 * super().__call__(x)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (Expanded(Dense(2, 2), nn.ReLU()), "Expanded.*does not inherit the proof of GradientFlow"),
        (ExpandedDense(2, 2), "ExpandedDense.*does not inherit the proof of Dense"),
        (BentReLU(), "BentReLU.*ReLU"),
        (ExpandedDenoiser(DenoiserArchitecture(blocks=1)), "ExpandedDenoiser.*Denoiser"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_does_not_inherit_a_proof(module, name):
    refused(module, name)


@pytest.mark.parametrize(
    "module",
    [nn.BatchNorm2d(3), nn.LayerNorm(4), nn.MultiheadAttention(4, 2), nn.MaxPool2d(2), nn.GELU(), nn.ModuleList(), nn.PReLU()],
    ids=lambda module: type(module).__name__,
)
def test_unknown_modules_are_named_with_the_remedy(module):
    refused(module, rf"{type(module).__name__}.*certificate\.rule\({type(module).__name__}\)")


def test_an_unknown_module_deep_inside_is_named():
    refused(nn.Sequential(nn.ReLU(), nn.Sequential(Dense(2, 2), nn.BatchNorm1d(2))), "BatchNorm1d")


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_are_refused_until_removed(register):
    for module in (flow(), Dense(2, 2), denoiser(), nn.Sequential(nn.ReLU())):
        handle = getattr(module, register)(lambda *_: None)
        refused(module, f"{type(module).__name__} carries forward hooks")
        handle.remove()
        stablenet.certify(module)


@pytest.mark.parametrize("part", ["linear", "activation"])
@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_inside_a_block_are_refused(part, register):
    module = flow()
    getattr(getattr(module, part), register)(lambda *_: None)
    refused(module, "hooks")
    network = denoiser()
    getattr(getattr(network.blocks[1], part), register)(lambda *_: None)
    refused(network, "hooks")


def test_replaced_methods_are_refused():
    for name in ("forward", "_field", "_step", "spectral_norm_bound"):
        module = flow()
        object.__setattr__(module, name, lambda *_: 0.0)
        refused(module, f"GradientFlow carries a replaced {name}")
    for part, name in (("linear", "forward"), ("linear", "adjoint"), ("activation", "forward")):
        module = flow()
        object.__setattr__(getattr(module, part), name, lambda x, *_: 9 * x)
        refused(module, f"replaced {name}")
    for name in ("forward", "anchor_weights", "_restored", "flows"):
        network = denoiser()
        object.__setattr__(network, name, lambda *_: None)
        refused(network, f"Denoiser carries a replaced {name}")
    for name in ("forward", "bank", "profile_slopes", "scales", "level"):
        ridge = Ridge(RidgeArchitecture(filters=1, kernel_size=3))
        object.__setattr__(ridge, name, lambda *_: None)
        refused(ridge, f"Ridge carries a replaced {name}")
    network = denoiser()
    network.blocks[0].linear.polyphase_weight = lambda: torch.ones(16, 4, 2, 2)
    refused(network, "replaced polyphase_weight")
    convolution = nn.Conv2d(1, 1, 3)
    convolution._conv_forward = lambda x, w, b: 9 * x
    refused(convolution, "replaced _conv_forward")


def test_parametrizations_are_refused():
    refused(parametrizations.spectral_norm(nn.Linear(2, 2)), "ParametrizedLinear.*Linear")
    refused(parametrizations.weight_norm(Dense(2, 2)), "ParametrizedDense.*Dense")
    refused(spectral_norm(nn.Conv2d(2, 2, 3)), "Conv2d carries forward hooks")
    module = flow()
    parametrizations.weight_norm(module.linear)
    refused(module, "ParametrizedDense")


def test_a_compiled_module_is_refused_by_name():
    refused(torch.compile(flow()), "OptimizedModule")


def test_swapped_parts_of_a_block_are_refused():
    module = flow()
    module.linear = ExpandedDense(3, 4)
    refused(module, "ExpandedDense")
    module = flow()
    module.linear = nn.Linear(3, 4, bias=False)
    refused(module, "Linear")
    for activation in (nn.GELU(), BentReLU(), nn.LeakyReLU(-1.0), nn.Softplus(threshold=0.1)):
        module = flow()
        module.activation = activation
        refused(module, type(activation).__name__)
    module = flow()
    module.policy = "free"
    refused(module, "free")


def test_lying_schedules_and_tableaus_are_refused():
    module = flow()
    module.schedule = namedtuple("Free", "steps step_size weight_factor")(1, 9.0, 1.0)
    refused(module, "Free")

    class Liar(ButcherTableau):
        @property
        def circle_contractivity_radius(self):
            return 9.0

        def is_nonexpansive(self, z):
            return True

        def averagedness(self, z):
            return 0.1

    refused(flow(tableau=Liar([[0, 0], [0.5, 0]], [0, 1], "liar")), "liar")


def test_an_inadmissible_tableau_swapped_in_is_not_certified_nonexpansive():
    module = flow()
    module.tableau = tableaus.MIDPOINT
    certificate = stablenet.certify(module).certificate
    assert certificate.averagedness is None
    assert not certificate.is_nonexpansive


@pytest.mark.parametrize("step_size", [9.0, -1.0, math.nan, math.inf])
def test_a_step_size_set_by_hand_is_judged_as_it_is(step_size):
    module = flow()
    module.schedule = type(module.schedule)(1, step_size)
    try:
        assert not stablenet.certify(module).certificate.is_nonexpansive
    except ValueError as refusal:
        assert "finite" in str(refusal)


def test_more_steps_set_by_hand_cost_averagedness():
    module = flow()
    before = stablenet.certify(module).averagedness
    module.schedule = type(module.schedule)(5, module.schedule.step_size)
    assert stablenet.certify(module).averagedness > before
    module.schedule = type(module.schedule)(0, module.schedule.step_size)
    x = torch.rand(2, 3)
    assert stablenet.certify(module).averagedness == 0
    assert module(x).equal(x)


def test_a_negative_time_is_never_certified():
    module = flow()
    module.time = -1.0
    module.eval()
    try:
        assert not stablenet.certify(module).certificate.is_nonexpansive
    except ValueError as refusal:
        assert "finite number >= 0" in str(refusal)


def test_a_fraction_beyond_one_is_not_certified():
    module = flow()
    module.time, module.fraction = 100.0, 1.5
    module.eval()
    assert not stablenet.certify(module).certificate.is_nonexpansive


def test_swapped_lifts_and_architectures_are_refused():
    network = denoiser()
    network.lift = Wider(2, 0)
    refused(network, "Wider")
    network.lift = lambda x: 3 * x
    refused(network, "lift")

    @dataclass
    class Loose:
        averagedness: float = 1.5

    network = denoiser(anchored=False)
    network.architecture = Loose()
    refused(network, "Loose")


def test_swapped_blocks_of_a_denoiser_are_refused():
    network = denoiser()
    network.blocks[0] = Expanded(PolyphaseConv2d(1, 4, 3), Clamp(4))
    refused(network, "Expanded")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["anchors", "log_scales", "blocks.0.linear.weight", "blocks.1.activation.logits"])
def test_nan_parameters_are_refused_by_name(name, value):
    network = denoiser()
    with torch.no_grad():
        network.get_parameter(name).flatten()[0] = value
    with pytest.raises(ValueError, match=f"Denoiser.{name} holds NaN or infinity"):
        stablenet.certify(network)


@pytest.mark.parametrize("value", [1e4, -1e4, 1e30, -1e30])
def test_huge_anchors_stay_within_the_target(value):
    network = denoiser(averagedness=0.7)
    with torch.no_grad():
        network.anchors.fill_(value)
    assert stablenet.certify(network).averagedness <= 0.7
    x = torch.rand(1, 1, 6, 6)
    assert network(x, 0.1).isfinite().all()


def test_a_bound_is_refused_where_the_map_was_altered():
    circular = GradientFlow(Conv2d(1, 1, 3, padding_mode="circular"), nn.ReLU()).eval()
    circular.linear.padding = 4
    with pytest.raises(TypeError, match="wider"):
        stablenet.certify(circular)
    network = denoiser()
    network.blocks[0].linear.index.fill_(4)
    with pytest.raises(TypeError, match="tap table"):
        stablenet.certify(network)


def test_knots_tampered_with_keep_the_certificate_true():
    """Any knots give convex weights: what may break is the conditioning, not the averagedness."""
    from tests.attack import attack

    network = denoiser().double()
    network.knots.copy_(network.knots.flip(0))
    alpha = stablenet.certify(network).averagedness
    for level in (0.01, 0.1):
        assert attack(lambda x, s=level: network(x, s), (1, 6, 6), averagedness=alpha).averagedness <= alpha * (1 + 1e-6)


def test_evaluation_is_what_is_certified():
    """Dropout is the identity in evaluation; the certificate says so in its reason."""
    assert "evaluation" in str(stablenet.certify(nn.Dropout(0.9)))
