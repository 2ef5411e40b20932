"""Frames, rotations, proximal maps and blocks stand in cards: a network with a block comes back as the same function."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import stablenet
from stablenet import cards, proximal
from stablenet.blocks import NOK, Reconstructed
from stablenet.linear import frames, rotation
from stablenet.weights import WeightsRefused, load, save
from tests.inventory.frames import FRAMES, ROTATIONS
from tests.inventory.proximal import CONVEX, PROXIMAL


def came_back(module: nn.Module) -> nn.Module:
    entries = json.loads(json.dumps(cards.describe(module)))
    again = cards.build(entries["kind"], entries["architecture"])
    again.load_state_dict(module.state_dict())
    return again


OWN_SEED = {"hadamard-small"}


@pytest.mark.parametrize("name", [name for name in FRAMES if name not in OWN_SEED])
def test_every_frame_comes_back(name):
    frame = FRAMES[name][0]()
    again = came_back(frame)
    assert type(again) is type(frame) and torch.equal(again.dense(), frame.dense())


@pytest.mark.parametrize(
    "frame", [FRAMES["hadamard-small"][0](), frames.Haar(3, 5, generator=torch.Generator().manual_seed(7))]
)
def test_a_frame_with_a_seed_of_its_own_is_refused_and_as_a_matrix_kept(frame):
    with pytest.raises(cards.CardRefused, match=r"generator of its own has no card: .*Dense\(frame.dense\(\)\)"):
        cards.describe(frame)
    assert torch.equal(came_back(frames.Dense(frame.dense())).dense(), frame.dense())


@pytest.mark.parametrize("name", ROTATIONS)
def test_every_rotation_comes_back(name):
    turn = ROTATIONS[name][0]()
    again = came_back(turn.float())
    assert (type(again), again.axis) == (type(turn), turn.axis) and torch.equal(again.dense(), turn.dense())


def network(block: NOK) -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3, stride=2, bias=False), nn.ReLU(), nn.Conv2d(4, 12, 3, padding=1), nn.Flatten())
    model = nn.Sequential(*layers, nn.Linear(12 * 9, 3))
    return stablenet.plug_in(model, layer="2", block=block).float().eval()


@pytest.mark.parametrize("name", CONVEX)
def test_a_network_with_a_block_comes_back_with_its_certificate(name, tmp_path):
    block = NOK(frames.DFT(12, 24), CONVEX[name], steps=3, rotation=rotation.Householder(12))
    model = network(block)
    tree = save(model, tmp_path / "net")
    again, x = load(tmp_path / "net.safetensors", kind="sequential"), torch.rand(2, 1, 7, 7)
    assert torch.equal(again(x), model(x))
    assert again[2][1].block.prox == block.prox
    assert stablenet.certify(again).certificate == tree.certificate


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 1},
        {"scale": 0.7, "rotation": rotation.Fixed.random(12)},
        {"tied": False, "steps": 3, "rotation": rotation.Cayley(12)},
    ],
    ids=["one step", "scaled", "untied"],
)
def test_the_settings_of_a_block_come_back(settings, tmp_path):
    model = network(NOK(frames.DCT(12, 36), proximal.SoftThreshold(0.1), **settings))
    save(model, tmp_path / "net")
    again = load(tmp_path / "net.safetensors")
    block, other = model[2][1].block, again[2][1].block
    assert (other.steps, other.prox, other.tied) == (block.steps, block.prox, block.tied)
    x = torch.rand(2, 1, 7, 7)
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize("name", [name for name in PROXIMAL if name not in CONVEX])
def test_what_has_no_certificate_is_not_saved(name, tmp_path):
    with pytest.raises(WeightsRefused, match="not saved: .*discontinuous"):
        save(network(NOK(frames.DFT(12, 24), PROXIMAL[name])), tmp_path / "net")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        (("steps",), 0, "steps must be an integer of at least 1"),
        (("scale",), 1.5, r"scale must lie in \(0, 1\]"),
        (("prox", "name"), "magic", "prox.name is 'magic', where one of"),
        (("prox", "weight"), -1.0, "weight > 0"),
        (("frame", "kind"), "relu", "a frame and a rotation|no proof of D"),
        (("frame", "architecture", "frequencies"), [0, 0], "distinct numbers"),
    ],
)
def test_a_card_that_was_changed_is_refused(place, value, text, tmp_path):
    model = network(NOK(frames.DFT(12, 24), proximal.SoftThreshold(0.1)))
    save(model, tmp_path / "net")
    card = json.loads((tmp_path / "net.json").read_text())
    entries = card["architecture"]["layers"][2]["architecture"]["layers"][1]["architecture"]["inner"]["architecture"]
    if place == ("frame", "kind"):
        entries["frame"]["architecture"] = {}
    for key in place[:-1]:
        entries = entries[key]
    entries[place[-1]] = value
    (tmp_path / "net.json").write_text(json.dumps(card))
    with pytest.raises(WeightsRefused, match=text):
        load(tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(1, 2, 3, padding="same"), nn.Flatten(0, 1), nn.Tanh()], ids=lambda m: type(m).__name__
)
def test_layers_that_no_card_can_say_are_refused(layer):
    with pytest.raises(cards.CardRefused, match="has no card|no kind of card"):
        cards.describe(nn.Sequential(layer, Reconstructed(NOK(frames.DCT(2, 4), proximal.Nonnegative()))))
