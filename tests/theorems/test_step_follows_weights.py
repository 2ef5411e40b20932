"""train(), eval() and load_state_dict() leave every weight as it is; the step is never older than the weights it is for."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import stablenet
from stablenet.activations import slope_interval
from stablenet.blocks import GradientFlow, measured
from stablenet.blocks.flow import plain_form
from stablenet.enforcement import Rescale, Step, Substeps
from stablenet.following import Following
from stablenet.linear import Dense, tracking
from stablenet.networks import Classifier, Denoiser
from stablenet.spectral import bounds
from tests.attack import attack
from tests.inventory import ARCHITECTURES, CLASSIFIERS, MAPS

POLICIES = [Substeps(max_steps=10_000), Step(), Rescale()]


def large(policy, linear: nn.Module | None = None, factor: float = 10.0) -> GradientFlow:
    """A block whose weight is far beyond what its policy lets through."""
    torch.manual_seed(0)
    block = GradientFlow(linear or Dense(5, 6), nn.LeakyReLU(0.3), policy=policy, time=3.0)
    with torch.no_grad():
        block.linear.weight.mul_(factor)
    return block


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("linear", MAPS)
def test_modes_and_loading_leave_every_weight_of_a_block(policy, linear):
    block, other = (large(policy, MAPS[linear][0](), factor) for factor in (10.0, 30.0))
    start = bits(block)
    for mode in (False, True, False):
        assert same(bits(block.train(mode)), start)
        stablenet.certify(block)
    for mode in (True, False):
        block.train(mode).load_state_dict(other.state_dict())
        assert same(bits(block), bits(other))


@pytest.mark.parametrize("make", [lambda: Denoiser(ARCHITECTURES["color"]), lambda: Classifier(CLASSIFIERS["average"])])
def test_modes_and_loading_leave_every_weight_of_a_network(make):
    network, other = make(), make()
    for model in (network, other):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(5)
    start = bits(network)
    stablenet.certify(network.eval())
    assert same(bits(network), start)
    assert same(bits(network.train()), start)
    network.load_state_dict(other.state_dict())
    network.eval()
    assert same(bits(network), bits(other))


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_a_certificate_in_training_mode_is_that_of_evaluation(policy):
    """What trains may take another step, by the followed norm; what is certified is what evaluation runs."""
    block = large(policy)
    stablenet.enforce(block)
    with torch.no_grad():
        block.linear.weight.mul_(0.05)
    step = block.schedule
    in_training = stablenet.certify(block.train()).certificate
    assert block.schedule == step
    assert in_training == stablenet.certify(block.eval()).certificate
    network = Denoiser(ARCHITECTURES["step-heun"])
    assert stablenet.certify(network.train()).certificate == stablenet.certify(network.eval()).certificate


def in_place(block: GradientFlow) -> None:
    with torch.no_grad():
        block.linear.weight.mul_(3)


def in_inference(block: GradientFlow) -> None:
    with torch.inference_mode():
        block.linear.weight.mul_(3)


def behind_the_counter(block: GradientFlow) -> None:
    block.linear.weight.data.mul_(3)


def swapped_data(block: GradientFlow) -> None:
    block.linear.weight.data = 3 * block.linear.weight.data


def swapped_parameter(block: GradientFlow) -> None:
    block.linear.weight = nn.Parameter(3 * block.linear.weight.detach())


def swapped_map(block: GradientFlow) -> None:
    linear = copy.deepcopy(block.linear)
    linear.weight.data.mul_(3)
    block.linear = linear


def loaded(block: GradientFlow, **options: bool) -> None:
    state = block.state_dict()
    block.load_state_dict({**state, "linear.weight": 3 * state["linear.weight"]}, **options)


def assigned(block: GradientFlow) -> None:
    loaded(block, assign=True)


def optimized(block: GradientFlow) -> None:
    block.linear.weight.grad = -2 * block.linear.weight.detach()
    torch.optim.SGD([block.linear.weight], lr=1.0).step()


def other_precision(block: GradientFlow) -> None:
    block.linear.weight.data.mul_(3)
    block.float().double()


CHANGES = [
    in_place,
    in_inference,
    behind_the_counter,
    swapped_data,
    swapped_parameter,
    swapped_map,
    loaded,
    assigned,
    optimized,
    other_precision,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("policy", [Substeps(max_steps=10_000), Step()], ids=repr)
def test_no_change_of_a_weight_escapes_the_step(policy, change: Callable[[GradientFlow], None]):
    block = large(policy).double().eval()
    before = block.schedule
    copied = copy.deepcopy(block)
    change(block)
    assert block.schedule.step_size < before.step_size / 8.5
    assert block.z <= block.z_max * (1 + 1e-6)
    assert attack(block, (5,), iterations=20, pairs=4).lipschitz <= 1 + 1e-6
    assert copied.schedule == before
    change(copied)
    assert copied.schedule.step_size == pytest.approx(block.schedule.step_size, rel=1e-5)


def test_an_entry_that_the_sample_misses_is_seen_by_certify_and_then_by_the_pass():
    block = large(Step(), Dense(70, 80), 1.0).eval()
    before = block.schedule
    assert len(block.linear.weight.flatten()) > 2 * measured.SAMPLED
    block.linear.weight.data.flatten()[1] = 100.0
    assert stablenet.certify(block).certificate.is_nonexpansive
    assert block.schedule.step_size < before.step_size / 100
    assert block.z <= block.z_max * (1 + 1e-6)


def test_the_norm_is_measured_once_for_the_same_weights(monkeypatch):
    block, x = large(Step()).eval(), torch.rand(2, 5)
    asked = []
    original = bounds.upper_bound
    monkeypatch.setattr("stablenet.spectral.upper_bound", lambda linear: asked.append(linear) or original(linear))
    for _ in range(5):
        block(x)
    assert len(asked) == 1


def test_building_a_network_measures_nothing(monkeypatch):
    def measured(*_):
        raise AssertionError("a norm was measured")

    for owner, name in ((bounds, "_kernel_bound"), (bounds, "matrix_upper_bound"), (tracking.symbols, "peak")):
        monkeypatch.setattr(owner, name, measured)
    monkeypatch.setattr(tracking.Power, "step", measured)
    for architecture in ARCHITECTURES.values():
        network = Denoiser(architecture).eval().train()
        network.load_state_dict(network.state_dict())
    for architecture in CLASSIFIERS.values():
        network = Classifier(architecture).eval().train()
        network.load_state_dict(network.state_dict())


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_certified_enforcement_keeps_what_the_policy_promises_in_either_mode(policy, dtype):
    for mode in (True, False):
        block = large(policy).to(dtype).train(mode)
        stablenet.enforce(block, certified=True)
        assert block.training == mode
        tree = stablenet.certify(block)
        assert tree.certificate.is_averaged
        assert block.eval().z <= block.z_max * (1 + 1e-12)


@pytest.mark.parametrize("make", [lambda: Denoiser(ARCHITECTURES["color"]), lambda: Classifier(CLASSIFIERS["unshuffle"])])
def test_new_networks_are_nonexpansive_before_any_enforcement(make):
    torch.manual_seed(1)
    network = make()
    blocks = [module for module in network.modules() if type(module) is GradientFlow]
    assert blocks
    assert all(stablenet.certify(block).certificate.is_nonexpansive for block in blocks)


@pytest.mark.parametrize("linear", ["dense", "conv2d", "conv2d-circular", "polyphase"])
def test_what_follows_goes_on_from_its_tensors_to_the_bit(linear):
    def train(block: GradientFlow, steps: range) -> None:
        for step in steps:
            with torch.no_grad():
                noise = torch.randn(block.linear.weight.shape, generator=torch.Generator().manual_seed(step))
                block.linear.weight.add_(0.1 * noise)
            stablenet.enforce(block)

    whole = nn.Sequential(large(Rescale(), MAPS[linear][0]()))
    Following(whole)
    train(whole[0], range(10))
    cut = nn.Sequential(large(Rescale(), MAPS[linear][0]()))
    first = Following(cut)
    train(cut[0], range(5))
    state, tensors = bits(cut), {name: value.clone() for name, value in first.tensors().items()}
    resumed = nn.Sequential(large(Rescale(), MAPS[linear][0]()))
    following = Following(resumed)
    resumed.load_state_dict(state)
    following.restore(tensors)
    train(resumed[0], range(5, 10))
    assert same(bits(resumed), bits(whole))
    assert following.norms["0"].norm == whole[0].followed.norm


def test_nothing_of_training_is_in_a_state_dict():
    block = large(Rescale())
    stablenet.enforce(block.train())
    assert set(block.state_dict()) == {"linear.weight", "bias"}


def test_a_schedule_set_by_hand_stays_until_enforced():
    block = large(Step()).eval()
    ours = type(block.schedule)(3, 0.25)
    block.schedule = ours
    for mode in (True, False):
        assert block.train(mode).schedule == ours
        assert "3 x Euler, h=0.25" in str(stablenet.certify(block))
    stablenet.enforce(block)
    assert block.schedule != ours


def test_a_plain_form_takes_the_step_of_evaluation():
    block = large(Step())
    stablenet.enforce(block)
    with torch.no_grad():
        block.linear.weight.mul_(0.5)
    flow = plain_form.of(block)
    assert flow.schedule == block.eval().schedule
    assert slope_interval(flow.activation)[1] == 1
    x = torch.rand(3, 5)
    assert torch.equal(flow(x), block(x))
