"""Weights are taken only with their card, unchanged, and with the certificate that the card states."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

import stablenet.weights
from stablenet.bundled import NotBundled, data_path
from stablenet.networks import Denoiser, DenoiserArchitecture
from stablenet.weights import WeightsRefused, load, pretrained, read_card, save
from tests.attack import attack
from tests.inventory import ARCHITECTURES

SMALL = DenoiserArchitecture(features=4, kernel_size=3, blocks=2)


@pytest.fixture
def saved(tmp_path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    save(Denoiser(SMALL), path, seed=0, data="none")
    return path


def edit_card(path: Path, change) -> None:
    card = json.loads(path.with_suffix(".json").read_text())
    change(card)
    path.with_suffix(".json").write_text(json.dumps(card))


def sign(path: Path) -> None:
    """What a careful forger would do: make the card agree with the changed bytes."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_card(path, lambda card: card.update(sha256=digest))


def rewrite(path: Path, change) -> None:
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    path.write_bytes(safetensors.torch.save(tensors))
    sign(path)


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n != "step-heun"])
def test_round_trip(name, tmp_path):
    torch.manual_seed(1)
    network = Denoiser(ARCHITECTURES[name])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    stablenet.enforce(network, certified=True)
    tree = save(network, tmp_path / "round.safetensors", seed=1)
    again = load(tmp_path / "round.safetensors")
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    for ours, theirs in zip(again.parameters(), network.parameters(), strict=True):
        assert ours.equal(theirs)
    assert stablenet.certify(again).certificate == tree.certificate
    x = torch.rand(1, network.channels, 9, 11)
    network.eval()
    torch.testing.assert_close(again(x, 0.1), network(x, 0.1).detach(), rtol=1e-6, atol=1e-7)


def test_card_contents(saved):
    card = read_card(saved)
    assert card["name"] == "small"
    assert card["architecture"]["features"] == 4
    certificate = stablenet.certify(load(saved)).certificate
    assert card["certificate"] == {"lipschitz": 1.0, "averagedness": certificate.averagedness}
    assert card["sha256"] == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert card["parameters"] == sum(p.numel() for p in Denoiser(SMALL).parameters())
    assert (card["seed"], card["data"]) == (0, "none")


def test_saving_leaves_no_other_file_and_keeps_the_mode(tmp_path):
    network = Denoiser(SMALL).train()
    save(network, tmp_path / "folder" / "a.safetensors")
    assert network.training
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == ["a.json", "a.safetensors"]


@pytest.mark.parametrize("place", [0.02, 0.5, 0.999])
def test_one_flipped_bit_is_refused(saved, place):
    content = bytearray(saved.read_bytes())
    content[int(place * len(content))] ^= 1
    saved.write_bytes(bytes(content))
    with pytest.raises(WeightsRefused, match="sha256.*changed or damaged"):
        load(saved)


@pytest.mark.parametrize("entry", ["lipschitz", "averagedness"])
def test_a_card_that_promises_more_than_the_weights_is_refused(saved, entry):
    edit_card(saved, lambda card: card["certificate"].update({entry: card["certificate"][entry] * 0.5}))
    with pytest.raises(WeightsRefused, match="no longer holds.*the weights give lipschitz <= 1, averagedness"):
        load(saved)


def test_changed_weights_and_card_signed_again_are_certified_anew(saved):
    """Anchors pushed away from the input cost averagedness: the signature matches, the certificate does not."""
    rewrite(saved, lambda tensors: tensors["anchors"].fill_(-20.0))
    with pytest.raises(WeightsRefused, match="certificate of small.safetensors no longer holds"):
        load(saved)


def test_weights_scaled_up_and_signed_again_never_load_expansive(saved):
    rewrite(saved, lambda tensors: tensors["blocks.0.linear.weight"].mul_(1000.0))
    try:
        network = load(saved)
    except WeightsRefused:
        return
    certificate = stablenet.certify(network).certificate
    assert certificate.is_averaged
    found = attack(lambda x: network.double()(x, 0.1), (1, 9, 8), averagedness=certificate.averagedness)
    assert found.lipschitz <= 1 + 1e-6


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_weights_are_refused_by_name(saved, value):
    rewrite(saved, lambda tensors: tensors["log_scales"].flatten().__setitem__(0, value))
    with pytest.raises(WeightsRefused, match="log_scales hold NaN or infinity"):
        load(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("anchors"),
        lambda t: t.update(extra=torch.zeros(1)),
        lambda t: t.update(anchors=torch.zeros(3, 3)),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_tensors_that_do_not_fit_are_refused(saved, change):
    rewrite(saved, change)
    with pytest.raises(WeightsRefused, match="does not fit its card"):
        load(saved)


@pytest.mark.parametrize("size", [0, 5, -10])
def test_truncated_files_are_refused(saved, size):
    saved.write_bytes(saved.read_bytes()[:size])
    with pytest.raises(WeightsRefused, match="sha256"):
        load(saved)
    sign(saved)
    with pytest.raises(WeightsRefused, match="does not fit its card"):
        load(saved)


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_a_pickle_is_refused_and_not_executed(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved.write_bytes(pickle.dumps(Payload()))
    sign(saved)
    with pytest.raises(WeightsRefused, match="does not fit its card"):
        load(saved)
    assert not (tmp_path / "executed").exists()


def test_missing_files_are_refused(saved):
    saved.with_suffix(".json").unlink()
    with pytest.raises(WeightsRefused, match="has no card: expected small.json"):
        load(saved)
    with pytest.raises(WeightsRefused, match="no weights at"):
        load(saved.with_name("absent.safetensors"))
    with pytest.raises(WeightsRefused, match="no weights at"):
        load(saved.parent)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"architecture": {}}', "\\u0000"]
    + ['{"architecture": {}, "sha256": "", "certificate": {"lipschitz": "one", "averagedness": 1}}']
    + ['{"architecture": {}, "sha256": "", "certificate": {"lipschitz": null, "averagedness": 1}}'],
)
def test_broken_cards_are_refused(saved, text):
    saved.with_suffix(".json").write_text(text)
    with pytest.raises(WeightsRefused, match="card small.json cannot be used"):
        load(saved)


def test_a_binary_card_is_refused(saved):
    saved.with_suffix(".json").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(WeightsRefused, match="cannot be used"):
        load(saved)


@pytest.mark.parametrize("entry", ["lipschitz", "averagedness"])
def test_a_card_that_states_nan_is_refused(saved, entry):
    edit_card(saved, lambda card: card["certificate"].update({entry: math.nan}))
    with pytest.raises(WeightsRefused, match="no longer holds"):
        load(saved)


@pytest.mark.parametrize(
    "change",
    [{"features": 8}, {"averagedness": 2.0}, {"colour": 3}, {"blocks": "two"}, {"max_noise_level": 25}],
    ids=str,
)
def test_a_card_of_another_architecture_is_refused(saved, change):
    edit_card(saved, lambda card: card["architecture"].update(change))
    with pytest.raises(WeightsRefused, match="does not fit its card"):
        load(saved)


def test_expansive_networks_are_not_saved(tmp_path, monkeypatch):
    network = Denoiser(SMALL)
    tree = stablenet.CertificateTree("Denoiser", stablenet.Certificate(1.5))
    monkeypatch.setattr(stablenet.weights, "certify", lambda _: tree)
    with pytest.raises(WeightsRefused, match="not certified averaged"):
        save(network, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_unknown_names_list_what_exists():
    with pytest.raises(WeightsRefused, match="no weights named 'denoiser-mauve': available are"):
        pretrained("denoiser-mauve")
    with pytest.raises(NotBundled, match="not bundled"):
        data_path("weights/absent.safetensors")


def test_refuses_a_card_of_another_format(saved: Path) -> None:
    card = saved.with_suffix(".json")
    content = json.loads(card.read_text())
    content["format"] = 0
    card.write_text(json.dumps(content))
    with pytest.raises(WeightsRefused, match="format 0"):
        load(saved)
