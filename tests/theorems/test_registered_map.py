"""A map of one's own, with a bound and an exact adjoint, is certified everywhere, in every policy; else it is refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import stablenet
from stablenet import linear, spectral
from stablenet.activations import LinearSpline
from stablenet.blocks import GradientFlow
from stablenet.blocks.flow import plain_form
from stablenet.certificate import NotCertified
from stablenet.enforcement import Rescale, Step, Substeps
from stablenet.linear.tracking import Power
from stablenet.training.loop import groups_of
from tests.attack import attack


class Gains(nn.Module):
    """x -> w x, one gain a channel: a diagonal map, which is its own adjoint."""

    strips = None

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.outputs, self.example_shape = channels, (channels, 1, 1)
        self.weight = nn.Parameter(torch.linspace(-3.0, 2.0, channels))

    def kernel(self, weight: Tensor) -> Tensor:
        return weight[:, None, None]

    def expand(self, values: Tensor) -> Tensor:
        return values[..., None, None]

    def forward(self, x: Tensor, kernel: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        y = x * (self.kernel(self.weight) if kernel is None else kernel)
        return y if bias is None else y + bias

    def adjoint(self, y: Tensor, size: Sequence[int] | None = None, kernel: Tensor | None = None) -> Tensor:
        return self(y, kernel)

    def tracker(self) -> Power:
        return Power(self)


@spectral.bound(Gains)
def _bound(module: Gains) -> float:
    return float(module.weight.detach().double().abs().max())


@linear.block_map(Gains)
def _map(module: Gains) -> Gains:
    return module


class Unbounded(Gains):
    """A map with an adjoint and no bound."""


@linear.block_map(Unbounded)
def _unbounded(module: Unbounded) -> Unbounded:
    return module


class Unregistered(Gains):
    """A map that inherits everything but the proof."""


@pytest.mark.parametrize("policy", [Substeps(), Step(), Rescale()], ids=repr)
def test_it_is_certified_trained_and_enforced_like_any_other(policy):
    block = GradientFlow(Gains(4), nn.LeakyReLU(0.2), policy=policy).double()
    nn.init.normal_(block.bias)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.05)
    stablenet.attach(optimizer, block)
    x = torch.rand(3, 4, 5, 6, dtype=torch.float64)
    for _ in range(5):
        block(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    stablenet.enforce(block, certified=True)
    certificate = stablenet.certify(nn.Sequential(block.eval(), nn.ReLU())).certificate
    assert certificate.is_averaged
    found = attack(block, (4, 5, 6), averagedness=stablenet.certify(block).averagedness, iterations=20)
    assert found.lipschitz <= 1 + 1e-6
    assert found.averagedness <= stablenet.certify(block).averagedness * (1 + 1e-6)
    assert stablenet.certify(plain_form.of(block)).certificate == stablenet.certify(block).certificate


def test_a_constraint_that_is_attained_is_seen_by_the_attack():
    """The bound is the truth here, so that a certificate understated by 5 % of the norm would be refuted."""
    block = GradientFlow(Gains(4), nn.LeakyReLU(1.0), policy=Step(), time=100.0, bias=False).double().eval()
    alpha = stablenet.certify(block).averagedness
    found = attack(block, (4, 3, 3), averagedness=alpha, iterations=40)
    assert 0.99 * alpha <= found.averagedness <= alpha * (1 + 1e-6)
    assert found.averagedness > 0.95 * alpha


def test_its_weight_trains_with_the_constrained_ones():
    model = nn.Sequential(GradientFlow(Gains(4), LinearSpline(4)))
    constrained, others = groups_of(model, 0.3)
    assert [id(p) for p in constrained["params"]] == [id(model[0].linear.weight)]
    assert {id(p) for p in others["params"]} == {id(model[0].bias), id(model[0].activation.logits)}


def test_what_is_missing_is_named():
    with pytest.raises(NotCertified, match=r"Unregistered is not a map.*block_map\(Unregistered\)"):
        GradientFlow(Unregistered(2), nn.ReLU())
    block = GradientFlow(Unbounded(2), nn.ReLU())
    with pytest.raises(NotCertified, match=r"Unbounded.*spectral\.bound\(Unbounded\)"):
        stablenet.certify(block)
    block = GradientFlow(Gains(2), nn.ReLU())
    block.linear = Unregistered(2)
    with pytest.raises(NotCertified, match=r"Unregistered.*block_map\(Unregistered\)"):
        stablenet.certify(block)


@pytest.mark.parametrize("name", ["forward", "adjoint", "kernel", "expand"])
def test_replaced_methods_of_a_map_are_refused(name):
    block = GradientFlow(Gains(2), nn.ReLU())
    object.__setattr__(block.linear, name, lambda *_: 9.0)
    with pytest.raises(NotCertified, match=f"replaced {name}"):
        stablenet.certify(block)
