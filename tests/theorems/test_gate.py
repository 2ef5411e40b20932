"""One gate stands before every certified number: exact class, unaltered instance, plain real parameters of the right shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm, weight_norm

import stablenet
from stablenet import spectral
from stablenet.activations import Softplus, slope_interval
from stablenet.blocks import GradientFlow
from stablenet.linear import Conv2d, Dense, PolyphaseConv2d
from stablenet.networks import Classifier, ClassifierArchitecture
from stablenet.rules import Rules
from tests.inventory import ACTIVATIONS, MAPS


def classifier(cls: type[Classifier] = Classifier) -> Classifier:
    return cls(ClassifierArchitecture(height=4, width=4, scale=1, stages=((2, 1),), dense_blocks=0, classes=3)).eval()


class Sharpened(Classifier):
    """Divides its logits by a temperature: radii from the parent's constants would be ten times too large."""

    def forward(self, x):
        return super().forward(x) / 0.1


class Packed(torch.Tensor):
    """A tensor subclass as quantizers install them: what it holds is not what it computes."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs or {})


def flow() -> GradientFlow:
    return GradientFlow(Dense(3, 4), nn.ReLU()).eval()


NUMBERS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], object]]] = {
    "certify a layer": (lambda: nn.Linear(3, 3), stablenet.certify),
    "certify a block": (flow, stablenet.certify),
    "certify a sequence": (lambda: nn.Sequential(nn.Linear(3, 3)), stablenet.certify),
    "upper bound": (lambda: nn.Conv2d(2, 2, 3), spectral.upper_bound),
    "lower bound": (lambda: nn.Conv2d(2, 2, 3), spectral.lower_bound),
    "slope interval": (nn.ReLU, slope_interval),
    "pairwise constants": (classifier, lambda network: network.pairwise_lipschitz()),
}
ALTERATIONS: dict[str, Callable[[nn.Module], object]] = {
    "hook": lambda module: module.register_forward_hook(lambda m, x, y: 10 * y),
    "pre-hook": lambda module: module.register_forward_pre_hook(lambda m, x: (10 * x[0],)),
    "method": lambda module: object.__setattr__(module, "forward", lambda *x: 10 * x[0]),
    "compiled": lambda module: module.compile(backend="eager"),
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
@pytest.mark.parametrize("number", NUMBERS)
def test_nothing_certified_of_an_altered_instance(number, alteration):
    make, ask = NUMBERS[number]
    module = make()
    ask(module)
    ALTERATIONS[alteration](module)
    with pytest.raises(stablenet.NotCertified, match="carries"):
        ask(module)


@pytest.mark.parametrize("number", NUMBERS)
def test_nothing_certified_under_a_global_hook(number):
    make, ask = NUMBERS[number]
    handle = torch.nn.modules.module.register_module_forward_hook(lambda m, x, y: None)
    try:
        with pytest.raises(stablenet.NotCertified, match="global"):
            ask(make())
    finally:
        handle.remove()


def test_a_subclass_has_no_pairwise_constants():
    with pytest.raises(stablenet.NotCertified, match="Sharpened"):
        classifier(Sharpened).pairwise_lipschitz()


@pytest.mark.parametrize("old", [weight_norm, spectral_norm])
def test_old_parametrizations_have_no_norm_bound(old):
    with pytest.raises(stablenet.NotCertified):
        spectral.upper_bound(old(nn.Linear(4, 4)))


@pytest.mark.parametrize("make", [lambda: nn.Linear(2, 2), lambda: nn.Conv2d(1, 1, 3), lambda: Dense(2, 2)])
def test_complex_weights_and_tensor_subclasses_are_refused(make):
    module = make()
    module.weight = nn.Parameter(100j * torch.ones_like(module.weight, dtype=torch.complex64))
    with pytest.raises(stablenet.NotCertified, match="complex64"):
        stablenet.certify(module)
    module = make()
    module._parameters["weight"] = module.weight.detach().as_subclass(Packed)
    with pytest.raises(stablenet.NotCertified, match="Packed"):
        stablenet.certify(module)
    with pytest.raises(ValueError, match="complex"):
        spectral.matrix_upper_bound(100j * torch.ones(2, 2))


@pytest.mark.parametrize("name", MAPS)
def test_a_weight_of_another_shape_is_refused(name):
    module = MAPS[name][0]()
    shape = list(module.weight.shape)
    shape[-1] += 2
    module.weight = nn.Parameter(torch.ones(shape))
    with pytest.raises(stablenet.NotCertified, match="shape"):
        spectral.upper_bound(module)


def test_a_long_weight_in_a_block_is_refused():
    """Its strips would count rows twice: 0.88 at 32 x 32 and 4.8 at 600 x 600."""
    block = GradientFlow(Conv2d(1, 1, 3), nn.ReLU(), bias=False)
    block.linear.weight = nn.Parameter(torch.ones(1, 1, 1, 15))
    with pytest.raises(stablenet.NotCertified, match=r"\(1, 1, 1, 15\).*\(1, 1, 3, 3\)"):
        stablenet.certify(block)


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(3, 3, 3), lambda: nn.ConvTranspose2d(3, 3, 3), lambda: nn.Linear(3, 3)])
def test_a_swapped_weight_of_torchs_layers_is_refused(make):
    module = make()
    module.weight = nn.Parameter(torch.ones(*module.weight.shape[:-1], module.weight.shape[-1] + 1))
    with pytest.raises(stablenet.NotCertified, match="shape"):
        stablenet.certify(module)


def test_circular_padding_is_what_torch_fixed_at_construction():
    """Assigning `padding` changes nothing in torch: it pads by what it computed when the layer was made."""
    layer = nn.Conv2d(1, 1, 3, padding=4, padding_mode="circular", bias=False)
    layer.padding = "same"
    with pytest.raises(stablenet.NotCertified, match="wider"):
        stablenet.certify(layer)
    stablenet.certify(nn.Conv2d(1, 1, 3, padding="same", padding_mode="circular"))


@pytest.mark.parametrize(
    "activation",
    [
        nn.Softplus(),
        nn.Softplus(threshold=math.nan),
        nn.ELU(math.nan),
        nn.LeakyReLU(math.nan),
        nn.Hardtanh(0.0, 1.0),
        nn.ReLU(inplace=True),
    ],
    ids=lambda activation: repr(activation),
)
def test_activations_without_slopes_are_refused(activation):
    if isinstance(activation, nn.Hardtanh):
        activation.min_val = math.nan
    with pytest.raises(stablenet.NotCertified):
        stablenet.certify(activation)


def test_softplus_without_a_threshold_never_falls():
    u = torch.linspace(-50, 50, 200001, dtype=torch.float64)
    for activation in (Softplus(), Softplus(3.0), nn.Softplus(threshold=36)):
        assert bool((activation(u).diff() >= -1e-14).all())
    assert bool((nn.Softplus()(torch.tensor([20.0, 20.0 + 1e-12], dtype=torch.float64)).diff() < 0).all())


def test_a_tableau_is_read_from_its_table_not_from_what_it_remembers():
    block = flow()
    block.tableau = stablenet.tableaus.euler_substeps(1)
    assert block.tableau.circle_contractivity_radius == 1
    object.__setattr__(block.tableau, "a", ((0, 0), (stablenet.tableaus.MIDPOINT.a[1][0], 0)))
    object.__setattr__(block.tableau, "b", (0, 1))
    assert not stablenet.certify(block).certificate.is_nonexpansive
    block = flow()
    object.__setattr__(block.tableau, "averagedness", lambda z: 0.01)
    with pytest.raises(stablenet.NotCertified, match="replaced averagedness"):
        stablenet.certify(block)
    vars(block.tableau).pop("averagedness")


def test_a_replaced_method_of_a_lift_is_refused():
    network = classifier()
    object.__setattr__(network.lift, "adjoint", lambda y, size: 9 * y)
    with pytest.raises(stablenet.NotCertified, match="IsometricLift carries a replaced adjoint"):
        stablenet.certify(network)


@pytest.mark.parametrize("make", [lambda: Dense(2, 2), lambda: PolyphaseConv2d(1, 1, 3), flow])
def test_weights_too_large_for_floats_are_one_clear_error(make):
    module = make().double()
    weight = module.linear.weight if isinstance(module, GradientFlow) else module.weight
    with torch.no_grad():
        weight.fill_(1e200)
    chain = nn.Sequential(module, module)
    with pytest.raises(ValueError, match="finite"):
        stablenet.certify(chain)


def test_what_a_user_registers_after_import_is_certified_everywhere():
    class Mine(nn.Module):
        def forward(self, u):
            return torch.arctan(u)

    class MyLayer(nn.Linear):
        def forward(self, x):
            return super().forward(x) / 2

    with pytest.raises(stablenet.NotCertified):
        stablenet.certify(Mine())
    stablenet.activations.slopes(Mine)(lambda module: (0.0, 1.0))
    stablenet.spectral.bound(MyLayer)(lambda module: spectral.matrix_upper_bound(module.weight) / 2)
    assert stablenet.certify(GradientFlow(Dense(2, 2), Mine()).eval()).lipschitz == 1
    assert stablenet.certify(nn.Sequential(Mine(), MyLayer(2, 2))).lipschitz > 0
    assert stablenet.certify(Mine()).averagedness == 0.5


def test_a_register_asks_the_exact_class_and_its_last_rule():
    colors: Rules[str] = Rules("color", KeyError, "{name} is none of {known}")
    colors(int)(lambda thing: "red")
    assert colors.of(3) == "red" and not colors.covers(True)
    with pytest.raises(KeyError, match="bool.*does not inherit the proof of int.*none of int"):
        colors.of(True)
    colors(int)(lambda thing: "blue")
    colors.otherwise(lambda thing: "green" if isinstance(thing, str) else None)
    assert colors.of(3) == "blue" and colors.of("") == "green"


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_inventory_passes_the_gate(name):
    slope_interval(ACTIVATIONS[name](3))
