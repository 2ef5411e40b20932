"""An orthogonalized step moves every singular direction alike, and a map trained with such steps keeps its rank."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stablenet.training.optimizers import OrthogonalizedMomentum, build, evened, orthogonalized

SHAPES = [(8, 8), (5, 40), (40, 5), (6, 4, 3, 3)]


def wild(shape: tuple[int, ...]) -> Tensor:
    """A matrix whose singular values spread over two decades."""
    flat = torch.empty(shape).flatten(1)
    rank = min(flat.shape)
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(flat.shape[0], rank, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(flat.shape[1], rank, generator=generator)).Q
    return (left @ torch.diag(torch.logspace(0, -2, rank)) @ right.T).reshape(shape)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_are_alike_and_directions_stay(shape, half):
    gradient = wild(shape)
    found = orthogonalized(7 * gradient, half=half)
    values = torch.linalg.svdvals(found.flatten(1))
    assert 0.3 < float(values.min()) <= float(values.max()) < 1.3
    u, _, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    aligned = (u.T @ found.flatten(1) @ v.T).diagonal()
    assert (aligned > 0.25).all()
    assert found.shape == gradient.shape and found.dtype == gradient.dtype


def test_a_zero_gradient_moves_nothing():
    assert not orthogonalized(torch.zeros(3, 4)).any()


def test_each_step_has_the_spectral_norm_of_the_rate():
    weight, bias = nn.Parameter(torch.zeros(6, 20)), nn.Parameter(torch.zeros(6))
    groups = [{"params": [weight], "orthogonal": True}, {"params": [bias]}]
    optimizer = build("orthogonalized", groups, 0.05, half=False)
    assert type(optimizer) is OrthogonalizedMomentum
    twin = nn.Parameter(torch.zeros(6))
    reference = torch.optim.Adam([twin], lr=0.05, betas=(0.9, 0.99))
    for k in range(4):
        before = weight.detach().clone()
        weight.grad = torch.randn(6, 20, generator=torch.Generator().manual_seed(k))
        bias.grad = torch.randn(6, generator=torch.Generator().manual_seed(10 + k))
        twin.grad = bias.grad.clone()
        optimizer.step()
        reference.step()
        assert 0.02 < float(torch.linalg.matrix_norm(weight.detach() - before, 2)) < 0.065
    assert torch.equal(bias, twin), "the rest is Adam's"


def test_state_survives_saving():
    def run(cut: bool) -> Tensor:
        weight = nn.Parameter(torch.eye(4))
        optimizer = build("orthogonalized", [{"params": [weight], "orthogonal": True}], 0.1, half=False)
        for k in range(6):
            if cut and k == 3:
                state = optimizer.state_dict()
                optimizer = build("orthogonalized", [{"params": [weight], "orthogonal": True}], 0.1, half=False)
                optimizer.load_state_dict(state)
            weight.grad = torch.randn(4, 4, generator=torch.Generator().manual_seed(k))
            optimizer.step()
        return weight.detach()

    assert torch.equal(run(True), run(False))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_evening_narrows_the_spread_and_keeps_directions(shape, half):
    matrix = wild(shape)
    before = torch.linalg.svdvals(matrix.flatten(1))
    moved = evened(matrix, 0.1, half=half)
    after = torch.linalg.svdvals(moved.flatten(1))
    assert float(after.max() / after.min()) < float(before.max() / before.min())
    assert float(after[0]) < float(before[0]) and float(after[-1]) > float(before[-1])
    u, _, v = torch.linalg.svd(matrix.flatten(1), full_matrices=False)
    turned = u.T @ moved.flatten(1) @ v.T
    assert float((turned - torch.diag(turned.diagonal())).abs().max()) < 0.01
    for _ in range(400):
        moved = evened(moved, 0.1, half=half)
    settled = torch.linalg.svdvals(moved.flatten(1))
    assert float(settled.max() / settled.min()) < 1.05


def test_evening_leaves_zero_alone():
    assert not evened(torch.zeros(3, 5), 0.1).any()
