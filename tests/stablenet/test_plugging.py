"""A block behind a layer of any network: shapes stay, sizes are checked at once, rotations are fitted without labels."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn

import stablenet
from stablenet import proximal
from stablenet.blocks import NOK, Reconstructed
from stablenet.linear import frames, rotation
from stablenet.plugging import fit_rotation, plug_in, pretrain
from tests.attack import attack


def block(dimension: int, size: int, **settings: object) -> NOK:
    return NOK(frames.DCT(dimension, size), proximal.SoftThreshold(0.05), steps=3, **settings)


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.Flatten(), nn.Linear(8 * 5 * 5, 4))


RESNET = torchvision.models.resnet18
BACKBONES = {
    "resnet18": (RESNET, "layer2", 128, (2, 3, 64, 64)),
    "resnet34": (torchvision.models.resnet34, "layer3.1.conv1", 256, (2, 3, 64, 64)),
    "densenet121": (torchvision.models.densenet121, "features.denseblock1", 256, (2, 3, 64, 64)),
    "small": (small, "0", 6, (3, 1, 13, 13)),
    "vectors": (lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)), "0", 6, (7, 5)),
    "tokens": (lambda: nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6)), "1", 6, (2, 9, 5)),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_the_model_keeps_its_shape_and_computes_what_the_block_says(name):
    make, layer, features, shape = BACKBONES[name]
    model, x = make().eval(), torch.rand(shape)
    outputs = []
    model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: outputs.append(output))
    before = model(x)
    parameters = sum(p.numel() for p in model.parameters())
    plugged = stablenet.plug_in(model, layer=layer, block=block(features, 2 * features))
    assert plugged is model and sum(p.numel() for p in model.parameters()) == parameters
    after = model(x)
    assert after.shape == before.shape and not torch.equal(after, before)
    plug = model.get_submodule(layer)[1]
    u = outputs[0].movedim(1, -1) if outputs[0].ndim == 4 else outputs[0]
    y = plug.block(u)
    expected = plug.block.frame(y)
    expected = expected.movedim(-1, 1) if outputs[0].ndim == 4 else expected
    torch.testing.assert_close(plug(outputs[0]), expected)
    model.train()(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_blocks_of_images_stand_behind_layers_of_images():
    wide = {"vectors": frames.DFT(8, 24), "pointwise": frames.Pointwise(frames.DFT(8, 24)), "cosines": frames.Cosines(8, 3)}
    x, found = torch.rand(2, 1, 13, 13), {}
    for name, frame in wide.items():
        torch.manual_seed(1)
        model = plug_in(small(), layer="2", block=NOK(frame, proximal.Nonnegative()))
        found[name] = model(x)
    torch.testing.assert_close(found["vectors"], found["pointwise"])
    assert found["cosines"].shape == (2, 4)


def test_wrong_names_are_told_with_the_near_ones():
    model = RESNET()
    with pytest.raises(ValueError, match="no layer 'layer9': near are .*layer[1-4]"):
        plug_in(model, layer="layer9", block=block(256, 512))
    with pytest.raises(ValueError, match="no layer '': near are conv1"):
        plug_in(model, layer="", block=block(256, 512))
    listed = nn.Sequential(nn.Linear(3, 3))
    listed.many = nn.ModuleList([nn.Linear(3, 3)])
    with pytest.raises(ValueError, match="many is a list of layers, which is never called: choose one of many.0"):
        plug_in(listed, layer="many", block=block(3, 6))


@pytest.mark.parametrize(
    ("make", "layer", "features"),
    [(RESNET, "layer3", 256), (torchvision.models.densenet121, "features.denseblock2", 512), (small, "2", 8)],
    ids=["resnet", "densenet", "small"],
)
def test_wrong_sizes_are_refused_at_once_with_both_numbers(make, layer, features):
    model = make().train()
    next(model.children()).eval()
    state, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    with pytest.raises(
        ValueError, match=rf"output of {layer} has shape .*, {features} channels, but the block has dimension 10"
    ):
        plug_in(model, layer=layer, block=block(10, 20))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items()), "trying a model changed it"
    with pytest.raises(ValueError, match=r"shape \(2, 4\), but a block of images needs \(batch, 10, height, width\)"):
        plug_in(small(), layer="4", block=NOK(frames.Pointwise(frames.DCT(10, 20)), proximal.Nonnegative()), example=X)


X = torch.zeros(2, 1, 13, 13)


class Odd(nn.Module):
    """A model of two inputs, which no guess reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lstm = nn.Linear(3, 4), nn.LSTM(3, 4)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.first(a) + self.first(b)


def test_where_no_guess_reaches_the_layer_sizes_are_checked_at_the_call():
    model = plug_in(Odd(), layer="first", block=block(5, 10))
    with pytest.raises(ValueError, match=r"x has shape \(2, 4\), 4 features, but the block has dimension 5"):
        model(torch.rand(2, 3), torch.rand(2, 3))
    assert plug_in(Odd(), layer="first", block=block(4, 10))(torch.rand(2, 3), torch.rand(2, 3)).shape == (2, 4)


def test_a_guess_that_no_layer_has_taken_refuses_nothing():
    """A Linear behind a Flatten tells nothing of the images in front of it."""
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(2 * 6 * 6, 3))
    plugged = plug_in(model, layer="0", block=NOK(frames.Cosines(2, 3), proximal.SoftThreshold(0.1)))
    assert plugged(torch.rand(4, 2, 6, 6)).shape == (4, 3)
    with pytest.raises(ValueError, match="but the block has dimension 3"):
        plug_in(model, layer="1", block=block(3, 6), example=torch.rand(4, 2, 6, 6))


def test_what_is_no_model_no_block_or_no_tensor_is_refused():
    with pytest.raises(ValueError, match="must be a torch module, got int"):
        plug_in(3, layer="0", block=block(3, 6))
    with pytest.raises(ValueError, match="NOK block of stablenet.blocks, got Linear"):
        plug_in(small(), layer="0", block=nn.Linear(3, 3))
    recurrent = nn.Sequential(nn.LSTM(3, 4))
    with pytest.raises(ValueError, match="gives a tuple, where a real tensor is needed"):
        plug_in(recurrent, layer="0", block=block(4, 8), example=torch.rand(2, 5, 3))
    with pytest.raises(ValueError, match="does not reach the layer"):
        model = nn.Sequential(nn.Linear(3, 4))
        model[0].unused = nn.Linear(4, 4)
        plug_in(model, layer="0.unused", block=block(4, 8), example=torch.rand(2, 3))


def test_a_plugged_network_of_certified_layers_is_certified_and_no_search_beats_it():
    torch.manual_seed(0)
    turned = NOK(frames.Haar(6, 12), proximal.SoftThreshold(0.02), steps=4, rotation=rotation.Householder(6))
    model = plug_in(nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)), layer="0", block=turned).double().eval()
    plug = model[0][1]
    tree = stablenet.certify(plug)
    assert stablenet.certify(turned).lipschitz > tree.lipschitz > 1
    norms = [stablenet.certify(layer).lipschitz for layer in (model[0][0], model[1])]
    assert stablenet.certify(model).lipschitz == pytest.approx(tree.lipschitz * norms[0] * norms[1], rel=1e-12)
    found = attack(plug, (6,), averagedness=None, iterations=60, pairs=8, spread=1.0, distances=(0.1, 3.0))
    assert 0.5 < found.lipschitz <= tree.lipschitz * (1 + 1e-9)
    hard = Reconstructed(NOK(frames.Haar(6, 12), proximal.HardThreshold(0.1)))
    with pytest.raises(stablenet.NotCertified, match="discontinuous"):
        stablenet.certify(hard)


@pytest.mark.parametrize("images", [False, True])
def test_rotations_are_fitted_without_labels_and_the_objective_never_rises(images):
    torch.manual_seed(0)
    axis = 1 if images else -1
    frame = frames.Pointwise(frames.DCT(8, 16)) if images else frames.DCT(8, 16)
    turned = NOK(frame, proximal.SoftThreshold(0.1), rotation=rotation.Fixed.random(8, axis=axis))
    model = plug_in(small(), layer="2", block=turned)
    weights = copy.deepcopy([p for p in model.parameters()])
    before = turned.rotations[0].matrix.clone()
    x = torch.rand(16, 1, 13, 13)
    (objectives,) = pretrain(model, x, rounds=15).values()
    assert (objectives.diff() <= 1e-5 * objectives[0]).all() and objectives[-1] < 0.9 * objectives[0]
    assert not torch.equal(before, turned.rotations[0].matrix)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert stablenet.certify(turned).lipschitz < 2
    assert model.training and model(x).shape == (16, 4)


def test_fitting_needs_a_fixed_rotation_and_finite_activations():
    with pytest.raises(ValueError, match=r"0.1 has rotations none: .*Fixed.random"):
        pretrain(plug_in(small(), layer="0", block=block(6, 12)), X)
    learned = block(6, 12, rotation=rotation.Cayley(6))
    with pytest.raises(ValueError, match="has rotations Cayley"):
        pretrain(plug_in(small(), layer="0", block=learned), X)
    with pytest.raises(ValueError, match="no block to fit"):
        pretrain(small(), X)
    fixed = block(6, 12, rotation=rotation.Fixed.random(6))
    with pytest.raises(ValueError, match="rounds"):
        pretrain(plug_in(small(), layer="0", block=fixed), X, rounds=0)
    with pytest.raises(ValueError, match="NaN"):
        fit_rotation(fixed, torch.full((2, 6), torch.nan))
