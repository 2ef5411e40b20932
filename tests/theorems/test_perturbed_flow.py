"""A perturbation touches the weakest neurons only, moves f by no more than is said, and frees what symmetry holds (M7)."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from stablenet.convex.toys import xor_population
from stablenet.robustness.margins import normalized_margin
from stablenet.training.perturbed import Perturbation, Perturbed
from stablenet.training.sample_complexity import Training, fit, two_layers

STILL = Perturbation(every=10**9)


def network(neurons: int = 40, d: int = 5, *, bias: bool = False, outputs: int = 1) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(d, neurons, bias=bias), nn.ReLU(), nn.Linear(neurons, outputs, bias=False)).double()


def wrapped(model: nn.Sequential, perturbation: Perturbation = STILL, *, seed: int = 0, rate: float = 0.01) -> Perturbed:
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(seed)
    return Perturbed(optimizer, model[0], model[2], generator=generator, perturbation=perturbation)


def advance(model: nn.Sequential, optimizer: Perturbed, steps: int) -> None:
    x = torch.randn(30, model[0].in_features, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - x[:, :1].abs()).square().mean().backward()
        optimizer.step()


def pieces(model: nn.Sequential, x: Tensor) -> Tensor:
    """(n, outputs, neurons): what each neuron contributes."""
    return torch.relu(model[0](x))[:, None] * model[2].weight


@pytest.mark.parametrize(("bias", "outputs"), [(False, 1), (True, 3)])
@torch.no_grad()
def test_the_other_neurons_keep_what_they_contribute_bit_for_bit(bias, outputs):
    model = network(bias=bias, outputs=outputs)
    optimizer = wrapped(model, Perturbation(share=0.09, radius=0.3))
    with torch.enable_grad():
        advance(model, optimizer, 5)
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    before, was = pieces(model, x), copy.deepcopy(model)
    strength = lambda m: torch.cat([p.reshape(40, -1) for p in m[0].parameters()], 1).norm(dim=1) * m[2].weight.norm(dim=0)  # noqa: E731
    drawn = optimizer.perturb()
    others = [j for j in range(40) if j not in drawn.tolist()]
    assert len(drawn) == 4  # 3.6, rounded up
    assert float(strength(was)[drawn].max()) <= float(strength(was)[others].min())
    assert torch.equal(before[..., others], pieces(model, x)[..., others])
    new = torch.cat([*(p.reshape(40, -1) for p in model[0].parameters()), model[2].weight.T], 1)[drawn]
    torch.testing.assert_close(new.norm(dim=1), torch.full((4,), 0.3, dtype=torch.float64))
    size = (x.square().sum(1) + bias).sqrt()
    moved = (model(x) - was(x)).norm(dim=1)
    assert bool((moved <= size * (strength(was)[drawn] + 0.3**2 / 2).sum()).all()) and float(moved.max()) > 0


def test_the_memory_of_the_drawn_neurons_is_emptied_and_of_no_others():
    model = network(bias=True)
    optimizer = wrapped(model, Perturbation(share=0.1))
    advance(model, optimizer, 7)
    drawn = optimizer.perturb()
    for parameter, dim in ((model[0].weight, 0), (model[0].bias, 0), (model[2].weight, 1)):
        for name in ("exp_avg", "exp_avg_sq"):
            sizes = optimizer.optimizer.state[parameter][name].transpose(0, dim).reshape(40, -1).norm(dim=1)
            assert bool((sizes[drawn] == 0).all()) and int((sizes == 0).sum()) <= len(drawn) + 2


def test_neurons_are_drawn_every_so_many_steps_uniformly_on_the_sphere():
    model, still = network(), network()
    optimizer, plain = wrapped(model, Perturbation(every=6)), wrapped(still)
    advance(model, optimizer, 5)
    advance(still, plain, 5)
    assert torch.equal(model[0].weight, still[0].weight)
    advance(model, optimizer, 1)
    advance(still, plain, 1)
    assert int((model[0].weight != still[0].weight).any(1).sum()) == 1  # 2 % of 40
    wide = network(20_000, 3)
    wrapped(wide, Perturbation(share=1.0, radius=2.0)).perturb()
    points = torch.cat([wide[0].weight, wide[2].weight.T], 1).detach() / 2
    assert float(points.mean(0).norm()) < 0.03
    torch.testing.assert_close(points.T @ points / len(points), torch.eye(4, dtype=torch.float64) / 4, rtol=0, atol=0.02)


def test_a_run_goes_on_as_if_it_had_not_stopped():
    whole = network()
    advance(whole, wrapped(whole, Perturbation(every=4)), 11)
    first = network()
    optimizer = wrapped(first, Perturbation(every=4))
    advance(first, optimizer, 6)
    state = optimizer.state_dict()
    advance(first, optimizer, 3)  # does not reach into the state that was taken
    second = network()
    advance(second, wrapped(second), 0)
    again = wrapped(second, Perturbation(every=4), seed=9)
    restored = network()
    optimizer = wrapped(restored, Perturbation(every=4))
    advance(restored, optimizer, 6)
    with torch.no_grad():
        for mine, theirs in zip(second.parameters(), restored.parameters(), strict=True):
            mine.copy_(theirs)
    again.load_state_dict(state)
    advance(second, again, 5)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_equal_neurons_stay_equal_until_they_are_perturbed():
    """Plain training of 30 equal neurons is that of one, whose margin is at most 0; drawn anew they solve noisy 2-XOR."""
    X, y = xor_population(4)
    margins = {}
    for perturbation in (None, Perturbation(every=20, share=0.05)):
        training = Training(width=30, steps=600, learning_rate=2e-2, decay=1e-3, perturbation=perturbation)
        model = two_layers(4, training, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            for weight, axis in ((model[0].weight, 0), (model[2].weight, 1)):
                weight.copy_(weight.narrow(axis, 0, 1).expand_as(weight))
        losses = list(fit(model, X, y, training, generator=torch.Generator().manual_seed(0)))
        margins[perturbation is None] = normalized_margin(model, X, y)
        if perturbation is None:
            inner, outer = (layer.weight.detach() for layer in (model[0], model[2]))
            assert float((inner - inner[:1]).abs().max()) < 1e-5 and float(outer.max() - outer.min()) < 1e-5
            assert losses[-1] > 0.5
    assert margins[True] <= 1e-9 and margins[False] > 0.1


@pytest.mark.parametrize(
    "settings",
    [{"every": 0}, {"share": 0.0}, {"share": 1.1}, {"share": float("nan")}, {"radius": 0.0}, {"radius": float("inf")}],
)
def test_what_is_out_of_range_is_refused(settings):
    with pytest.raises(ValueError, match="every must be at least 1, share in .* and radius positive"):
        Perturbation(**settings)


def test_layers_that_do_not_fit_are_refused():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="40 neurons do not fit a layer of 39 inputs"):
        Perturbed(optimizer, model[0], nn.Linear(39, 1), generator=torch.Generator())
    for number in itertools.product([0, -1], ["width", "steps"]):
        with pytest.raises(ValueError, match=f"{number[1]} must be at least 1"):
            Training(**{number[1]: number[0]})
    for name in ("learning_rate", "start"):
        with pytest.raises(ValueError, match=f"{name} must be positive"):
            Training(**{name: 0.0})
    with pytest.raises(ValueError, match="decay must not be negative"):
        Training(decay=-1.0)
