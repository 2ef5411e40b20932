"""After any change of the weights, enforce(model) in evaluation leaves a certified model; certify never flatters."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import stablenet
from stablenet import tableaus
from stablenet.blocks import GradientFlow
from stablenet.enforcement import Rescale, Step, Substeps
from stablenet.linear import Conv2d, Dense, PolyphaseConv2d
from stablenet.networks import Denoiser, DenoiserArchitecture
from tests.attack import attack

POLICIES = [Substeps(max_steps=100_000), Step(), Step(steps=3), Rescale(), Rescale(steps=2)]
TABLEAUS = [tableaus.EULER, tableaus.RK4, tableaus.KUTTA3]


def network(policy, tableau=tableaus.EULER) -> nn.Sequential:
    flows = [
        GradientFlow(linear, nn.Tanh(), tableau=tableau, policy=policy, time=2.0)
        for linear in (Conv2d(4, 3, 3), PolyphaseConv2d(1, 2, 3), Conv2d(4, 6, 5, padding_mode="circular"))
    ]
    return nn.Sequential(*flows[:1], *flows[2:])


@pytest.mark.parametrize("tableau", TABLEAUS, ids=lambda t: t.name)
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_wild_updates_end_certified(policy, tableau):
    model = network(policy, tableau)
    for scale in (0.0, 1e-3, 1.0, 4.0):
        for mode in (True, False):
            model.train(mode)
            with torch.no_grad():
                for flow in model:
                    flow.linear.weight.copy_(scale * torch.randn_like(flow.linear.weight))
            stablenet.enforce(model)
            if mode:
                stablenet.enforce(model, certified=True)
            model.eval()
            tree = stablenet.certify(model)
            assert tree.certificate.is_averaged, (scale, mode)
            assert all(flow.z <= flow.z_max * (1 + 1e-6) for flow in model)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_enforced_models_resist_an_attack(policy):
    model = network(policy).double()
    with torch.no_grad():
        for flow in model:
            flow.linear.weight.mul_(5)
            flow.bias.normal_()
    stablenet.enforce(model.eval())
    certificate = stablenet.certify(model).certificate
    found = attack(model, (4, 9, 8), averagedness=certificate.averagedness, iterations=6, pairs=3)
    assert found.lipschitz <= 1 + 1e-6
    assert found.averagedness <= certificate.averagedness * (1 + 1e-6)


@pytest.mark.parametrize("policy", [Substeps(), Step(), Rescale()], ids=repr)
def test_training_with_the_hook_ends_certified(policy):
    model = network(policy)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    stablenet.attach(optimizer, model)
    data, goal = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(data) - goal).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        # the tracked norm is a lower bound: z may pass its goal by what the power iteration misses, no more
        assert all(flow.z <= 1.1 * flow.z_max for flow in model)
    assert losses[-1] < losses[0]
    tree = stablenet.certify(model.eval())
    assert tree.certificate.is_averaged


def test_the_hook_is_removable():
    model = nn.Sequential(GradientFlow(Dense(3, 3), nn.ReLU(), policy=Rescale()))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    handle = stablenet.attach(optimizer, model)

    def push() -> float:
        model[0].linear.weight.grad = -10 * torch.eye(3)
        optimizer.step()
        return torch.linalg.matrix_norm(model[0].linear.weight, 2).item()

    assert push() < 2
    handle.remove()
    assert push() > 5
    assert push() > 15


def test_substeps_follow_the_norm_and_never_fall_to_zero():
    flow = GradientFlow(Dense(2, 2), nn.ReLU(), policy=Substeps(), time=1.0, fraction=0.5).eval()
    for scale in (0.0, 1e-3, 1.0, 3.0, 5.0):
        with torch.no_grad():
            flow.linear.weight.copy_(scale * torch.eye(2))
        stablenet.enforce(flow)
        assert flow.schedule.steps == max(1, math.ceil(scale**2 / flow.z_max))
        assert flow.schedule.steps * flow.schedule.step_size == pytest.approx(1.0)
        assert flow.schedule.weight_factor == 1


def test_substeps_refuse_beyond_max_steps():
    flow = GradientFlow(Dense(2, 2), nn.ReLU(), policy=Substeps(max_steps=8)).eval()
    with torch.no_grad():
        flow.linear.weight.copy_(100 * torch.eye(2))
    with pytest.raises(ValueError, match=r"needs \d+ steps.*max_steps=8.*raise max_steps"):
        stablenet.enforce(flow)
    try:
        assert not stablenet.certify(flow).certificate.is_nonexpansive
    finally:
        with torch.no_grad():
            flow.linear.weight.copy_(torch.eye(2))
    stablenet.enforce(flow)


def test_step_shrinks_and_grows_back_to_its_time():
    flow = GradientFlow(Dense(2, 2), nn.ReLU(), policy=Step(), time=1.0).eval()
    sizes = []
    for scale in (1.0, 2.0, 10.0, 0.1):
        with torch.no_grad():
            flow.linear.weight.copy_(scale * torch.eye(2))
        before = flow.linear.weight.clone()
        stablenet.enforce(flow)
        assert flow.linear.weight.equal(before)
        sizes.append(flow.schedule.step_size)
    assert sizes[0] == sizes[3] == 1.0
    assert sizes[2] == pytest.approx(sizes[1] * 4 / 100)


@pytest.mark.parametrize("mode", [True, False])
def test_rescale_is_idempotent(mode):
    flow = GradientFlow(Conv2d(2, 3, 3), nn.ReLU(), policy=Rescale()).train(mode)
    with torch.no_grad():
        flow.linear.weight.mul_(30)
    for _ in range(4):  # the tracked norm needs a few warm iterations
        stablenet.enforce(flow)
    settled = flow.linear.weight.clone()
    stablenet.enforce(flow)
    torch.testing.assert_close(flow.linear.weight, settled, rtol=3e-3 if mode else 0, atol=0)
    small = GradientFlow(Dense(2, 2), nn.ReLU(), policy=Rescale())
    with torch.no_grad():
        small.linear.weight.copy_(0.1 * torch.eye(2))
    stablenet.enforce(small)
    assert small.linear.weight.equal(0.1 * torch.eye(2))


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("policy", [Substeps(), Step(), Rescale()], ids=repr)
def test_reloading_the_same_state_changes_nothing(policy, mode):
    flow = GradientFlow(Dense(5, 7), nn.ReLU(), policy=policy)
    with torch.no_grad():
        flow.linear.weight.mul_(4)
    stablenet.enforce(flow.train(mode))
    weight, schedule = flow.linear.weight.clone(), flow.schedule
    flow.load_state_dict(copy.deepcopy(flow.state_dict()))
    assert flow.linear.weight.equal(weight)
    assert flow.schedule.steps == schedule.steps
    assert flow.schedule.step_size == schedule.step_size


@pytest.mark.parametrize("policy", [Substeps(), Step(), Rescale()], ids=repr)
def test_loaded_weights_stay_and_the_step_follows(policy):
    """New, larger weights arrive in evaluation mode: the step follows without another call, a weight waits for `enforce`."""
    flow = GradientFlow(Conv2d(2, 3, 3), nn.ReLU(), policy=policy).eval()
    state = flow.state_dict()
    state["linear.weight"] = 4 * state["linear.weight"]
    flow.load_state_dict(state)
    assert flow.linear.weight.equal(state["linear.weight"])
    assert stablenet.certify(flow).certificate.is_averaged == (policy != Rescale())
    stablenet.enforce(flow, certified=True)
    assert stablenet.certify(flow).certificate.is_averaged


@pytest.mark.parametrize("policy", [Substeps(), Step(), Rescale()], ids=repr)
def test_tampering_in_place_is_never_flattered(policy):
    """The weights grow behind the policy's back, in evaluation mode: certify speaks of what runs, and under Rescale, where
    no step follows, it is expansive."""
    flow = GradientFlow(Dense(4, 4), nn.LeakyReLU(0.5), policy=policy, time=4.0).double().eval()
    stablenet.enforce(flow)
    assert stablenet.certify(flow).certificate.is_averaged
    with torch.no_grad():
        flow.linear.weight.mul_(3)
    certificate = stablenet.certify(flow).certificate
    found = attack(flow, (4,), iterations=40)
    assert (found.lipschitz > 1) == (policy == Rescale())
    assert certificate.is_nonexpansive == (policy != Rescale())
    assert found.lipschitz <= certificate.lipschitz * (1 + 1e-9)
    stablenet.enforce(flow)
    assert stablenet.certify(flow).certificate.is_averaged


def test_tampering_with_slopes_is_never_flattered():
    flow = GradientFlow(Dense(4, 4), nn.LeakyReLU(0.5), time=4.0).double().eval()
    flow.activation.negative_slope = 7.0
    certificate = stablenet.certify(flow).certificate
    assert not certificate.is_nonexpansive
    assert attack(flow, (4,), iterations=40).lipschitz <= certificate.lipschitz
    flow.activation.negative_slope = -0.1
    with pytest.raises(stablenet.NotCertified, match="nondecreasing"):
        stablenet.certify(flow)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("mode", [True, False])
def test_nan_weights_are_refused(value, mode):
    flow = GradientFlow(Dense(3, 3), nn.ReLU()).train(mode)
    with torch.no_grad():
        flow.linear.weight[0, 0] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        stablenet.enforce(flow)
    with pytest.raises(ValueError, match="NaN or infinity"):
        stablenet.certify(flow)


@pytest.mark.parametrize("cls", [Step, Rescale])
def test_policies_need_a_step(cls):
    for steps in (0, -1, 1.5):
        with pytest.raises(ValueError, match="steps must be an integer of at least 1"):
            cls(steps)
    with pytest.raises(ValueError, match="max_steps"):
        Substeps(0)


@pytest.mark.parametrize(
    "change", [{"time": 0.0}, {"time": math.inf}, {"time": math.nan}, {"fraction": 0.0}, {"fraction": 1.1}]
)
def test_bad_block_parameters(change):
    with pytest.raises(ValueError, match="time must be positive and fraction in"):
        GradientFlow(Dense(2, 2), nn.ReLU(), **change)


def test_a_block_needs_a_known_map_and_policy():
    with pytest.raises(stablenet.NotCertified, match="Linear is not a map"):
        GradientFlow(nn.Linear(2, 2), nn.ReLU())

    class Never(Step):
        def schedule(self, *args):
            return super().schedule(*args)

    with pytest.raises(stablenet.NotCertified, match="policy"):
        GradientFlow(Dense(2, 2), nn.ReLU(), policy=Never())


def test_full_fraction_is_still_certified():
    """theta = 1 puts z on the boundary of the circle: rounding must fall on the right side."""
    for seed in range(5):
        torch.manual_seed(seed)
        for tableau in TABLEAUS:
            flow = GradientFlow(Dense(5, 6), nn.Sigmoid(), tableau=tableau, fraction=1.0, time=100.0).eval()
            assert stablenet.certify(flow).certificate.is_nonexpansive


def test_enforce_reaches_every_block_of_a_denoiser():
    model = Denoiser(DenoiserArchitecture(features=4, kernel_size=3, blocks=3))
    with torch.no_grad():
        for flow in model.blocks:
            flow.linear.weight.mul_(50)
    assert not stablenet.certify(model).certificate.is_nonexpansive
    stablenet.enforce(model, certified=True)
    assert stablenet.certify(model.eval()).certificate.is_averaged


def test_half_precision_copies_are_certified_from_their_own_weights():
    model = network(Step()).eval()
    for dtype in (torch.bfloat16, torch.float16):
        rounded = copy.deepcopy(model).to(dtype)
        certificate = stablenet.certify(rounded).certificate
        assert certificate.lipschitz <= 1.02
        stablenet.enforce(rounded)
        assert stablenet.certify(rounded).certificate.is_averaged
