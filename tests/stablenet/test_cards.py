"""Whatever network the package can build is saved and loaded as the same function with the same certificate."""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import os
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from stablenet import cards, certify, enforce, tableaus
from stablenet.bundled import available, data_path
from stablenet.certificate import CertificateTree, rule
from stablenet.enforcement import Rescale, Step, Substeps
from stablenet.entries import read_tableau, write_tableau
from stablenet.networks import Classifier, ClassifierArchitecture, Denoiser, DenoiserArchitecture, Symmetrized
from stablenet.weights import WeightsRefused, load, pretrained, save
from tests.inventory import ARCHITECTURES, CLASSIFIERS, wild_classifier, wild_denoiser
from tests.inventory.tableaus import RADII

SMALL = DenoiserArchitecture(features=4, kernel_size=3, blocks=2)
CUSTOM = tableaus.ButcherTableau([[0, 0], [Fraction(1, 3), 0]], [Fraction(1, 7), Fraction(6, 7)], "Heun")
NAMED = (*RADII, tableaus.HEUN.substeps(2), CUSTOM)


def card_of(path: Path) -> dict:
    return json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_denoiser_comes_back(name, tmp_path):
    network = wild_denoiser(ARCHITECTURES[name])
    tree = save(network, tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors", kind="denoiser")
    x = torch.rand(2, network.channels, 9, 11, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(again(x, 0.1), network(x, 0.1))
    assert certify(again).certificate == certify(network).certificate == tree.certificate
    assert again.architecture == network.architecture


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_comes_back(name, tmp_path):
    network = wild_classifier(CLASSIFIERS[name]).float().eval()
    a = network.architecture
    save(network, tmp_path / "net")
    again = load(tmp_path / "net.safetensors", kind="classifier")
    x = torch.rand(3, a.channels, a.height, a.width)
    assert torch.equal(again(x), network(x))
    assert certify(again).certificate == certify(network).certificate
    assert torch.equal(again.pairwise_lipschitz(), network.pairwise_lipschitz())


@pytest.mark.parametrize("policy", [Step(2), Substeps(80), Rescale(2)], ids=str)
@pytest.mark.parametrize("tableau", [tableaus.HEUN, tableaus.euler_substeps(3), CUSTOM], ids=lambda t: t.name)
def test_tableau_and_policy_come_back(tableau, policy, tmp_path):
    network = wild_denoiser(replace(SMALL, tableau=tableau, policy=policy))
    save(network, tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors")
    assert again.architecture == network.architecture
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(again(x, 0.1), network(x, 0.1))


@pytest.mark.parametrize("tableau", NAMED, ids=lambda t: t.name)
def test_tableaus_are_written_by_name_or_exactly(tableau):
    written = json.loads(json.dumps(write_tableau(tableau)))
    assert read_tableau(written, "tableau") == tableau
    assert isinstance(written, str) == (tableau is not CUSTOM), "a table under the name of another method is written out"


def test_a_symmetrized_denoiser_comes_back(tmp_path):
    network = Symmetrized(wild_denoiser(SMALL), 4)
    save(network, tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors", kind="denoiser")
    x = torch.rand(1, 1, 8, 10, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(again(x, 0.1), network(x, 0.1))
    with pytest.raises(WeightsRefused, match="holds a symmetrized: needed is a classifier"):
        load(tmp_path / "net.safetensors", kind="classifier")


@dataclass(frozen=True)
class HalvesShape:
    sizes: tuple[int, ...]
    inner: Denoiser | None = None


class Halves(nn.Module):
    """A user's network: x times a learned number, halved."""

    def __init__(self, architecture: HalvesShape) -> None:
        super().__init__()
        self.architecture = architecture
        self.weight = nn.Parameter(torch.full(architecture.sizes, 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.clamp(-1, 1) / 2


def test_a_user_registers_a_kind_of_her_own(tmp_path):
    network = Halves(HalvesShape((2, 3)))
    with pytest.raises(WeightsRefused, match=r"no kind of card for .*Halves: known are .*@stablenet.cards.kind"):
        save(network, tmp_path / "halves")
    cards.kind("halves", HalvesShape)(Halves)
    rule(Halves)(lambda network: CertificateTree("Halves", certify(nn.Identity()).certificate))
    save(network, tmp_path / "halves")
    assert card_of(tmp_path / "halves.json")["architecture"] == {"sizes": [2, 3], "inner": None}
    again = load(tmp_path / "halves.safetensors")
    assert type(again) is Halves and torch.equal(again(torch.ones(2, 3)), network(torch.ones(2, 3)))


def test_altered_networks_are_not_saved(tmp_path):
    network = Denoiser(SMALL)
    network.register_forward_hook(lambda module, inputs, output: 10 * output)
    with pytest.raises(WeightsRefused, match="hook"):
        save(network, tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_format_1_is_read_with_the_tableau_and_policy_that_it_meant(tmp_path):
    network = wild_denoiser(SMALL)
    save(network, tmp_path / "net.safetensors")
    card = card_of(tmp_path / "net.safetensors")
    card["format"] = 1
    del card["architecture"]["tableau"], card["architecture"]["policy"], card["kind"]
    (tmp_path / "net.json").write_text(json.dumps(card))
    assert load(tmp_path / "net.safetensors").architecture == SMALL
    card["format"] = 2
    (tmp_path / "net.json").write_text(json.dumps(card))
    with pytest.raises(WeightsRefused, match="architecture.tableau is missing"):
        load(tmp_path / "net.safetensors")


@pytest.mark.parametrize("name", available())
def test_shipped_cards_name_their_parts(name):
    path = data_path(f"weights/{name}.safetensors")
    card = card_of(path)
    assert card["format"] == 2
    if card["kind"] not in ("ridge", "guided", "sequential"):  # made of no blocks of a tableau
        assert card["architecture"]["tableau"] == "Euler"
        assert card["architecture"]["policy"] == {"name": "rescale", "steps": 1}
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    if name.endswith("-small") or card["kind"] in ("ridge", "guided", "sequential"):
        assert cards.describe(pretrained(name)) == {"kind": card["kind"], "architecture": card["architecture"]}


STRANGE = (None, True, [], {}, "two", "", -1, 0, 3, 10**9, 10**400, 1e300, -0.5, float("nan"), float("inf"), [[1]], {"name": 1})


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Every place of a JSON value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [p for key, child in children for p in places(child, (*path, key))]


def replaced(card: dict, place: tuple, value: object) -> dict:
    card = copy.deepcopy(card)
    inner = card
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return card


FUZZED = {
    "denoiser": lambda: Denoiser(replace(SMALL, tableau=CUSTOM, policy=Step())),
    "classifier": lambda: Classifier(replace(CLASSIFIERS["average"], policy=Substeps())),
    "symmetrized": lambda: Symmetrized(Denoiser(SMALL), 2),
}


@pytest.mark.parametrize("kind", FUZZED)
def test_no_entry_of_a_card_raises_anything_else(kind, tmp_path):
    """Each entry replaced by each strange value: the same network, or one refusal that names the file."""
    path = tmp_path / "net.safetensors"
    save(FUZZED[kind]().eval(), path)
    card = card_of(path)
    for place in places(card):
        for value in STRANGE:
            path.with_suffix(".json").write_text(json.dumps(replaced(card, place, value)))
            try:
                load(path)
            except WeightsRefused as error:
                assert "net" in str(error) and len(str(error)) < 700


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        (("architecture", "blocks"), "two", "architecture.blocks is 'two', where an integer of at most 4096 is needed"),
        (("architecture", "blocks"), 4000, "needs more parameters than the"),
        (("architecture", "policy", "name"), "stepp", "architecture.policy.name is 'stepp', where one of step, substeps"),
        (("architecture", "tableau"), "Huen", "architecture.tableau is 'Huen', where one of Euler, Heun"),
        (("architecture", "averagedness"), [], r"architecture.averagedness is \[\], where a finite number is needed"),
        (("certificate", "lipschitz"), None, "certificate.lipschitz is None, where a finite number is needed"),
        (("sha256",), 5, "sha256 is 5, where a string is needed"),
        (("format",), True, "format is True, where an integer is needed"),
        (("parameters",), 7, "parameters is 7, but the network has"),
        (("kind",), "classifierr", "net.safetensors holds a classifierr"),
    ],
)
def test_refusals_name_entry_value_and_need(place, value, text, tmp_path):
    path = tmp_path / "net.safetensors"
    save(Denoiser(SMALL).eval(), path)
    path.with_suffix(".json").write_text(json.dumps(replaced(card_of(path), place, value)))
    with pytest.raises(WeightsRefused, match=text):
        load(path)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**4, "1" * 5000], ids=["deep", "deep-object", "long"])
def test_cards_that_json_cannot_read(text, tmp_path):
    path = tmp_path / "net.safetensors"
    save(Denoiser(SMALL).eval(), path)
    path.with_suffix(".json").write_text(text)
    with pytest.raises(WeightsRefused, match="card net.json cannot be used"):
        load(path)


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.bool], ids=str)
def test_weights_of_another_type_are_refused(dtype, tmp_path):
    rewritten(tmp_path / "net.safetensors", lambda tensors: {k: v.to(dtype) for k, v in tensors.items()})
    with pytest.raises(WeightsRefused, match="real floating-point numbers of one precision"):
        load(tmp_path / "net.safetensors")


@pytest.mark.parametrize("value", [1e200, 1e300])
def test_huge_weights_are_refused(value, tmp_path):
    path = tmp_path / "net.safetensors"
    rewritten(path, lambda tensors: {k: torch.full_like(v, value) for k, v in tensors.items()}, policy=Step())
    with pytest.raises(WeightsRefused, match="net.safetensors"):
        load(path)


def rewritten(path: Path, change, policy=Rescale()) -> None:  # noqa: B008 - frozen
    """Saved weights, changed, with a card that has their sha256."""
    save(Denoiser(replace(SMALL, policy=policy)).double().eval(), path)
    path.write_bytes(safetensors.torch.save(change(safetensors.torch.load_file(path))))
    card = card_of(path) | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(card))


def test_loading_leaves_the_global_generator_alone(tmp_path):
    save(Denoiser(SMALL).eval(), tmp_path / "net.safetensors")
    before = torch.random.get_rng_state()
    load(tmp_path / "net.safetensors")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_names_with_dots_stay_apart(tmp_path):
    for name in ("v1.2", "v1.3"):
        save(Denoiser(SMALL).eval(), tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "v1.2.json",
        "v1.2.safetensors",
        "v1.3.json",
        "v1.3.safetensors",
    ]


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("method", ["write_text", "write_bytes"])
def test_a_full_disk_leaves_the_old_pair(method, tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    save(Denoiser(SMALL).eval(), path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(Path, method, full)
    with pytest.raises(OSError, match=r"cannot write net\.(json|safetensors), No space left on device: .*net"):
        save(wild_denoiser(SMALL), path)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_folder_in_the_way_leaves_nothing(tmp_path):
    (tmp_path / "net.json").mkdir()
    with pytest.raises(IsADirectoryError, match="a folder has this name"):
        save(Denoiser(SMALL).eval(), tmp_path / "net.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["net.json"]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))):
        save(Denoiser(SMALL).eval(), tmp_path / "file" / "net.safetensors")


@pytest.mark.parametrize("extra", [{"data": {1, 2}}, {"sha256": "x"}, {"format": 1}], ids=str)
def test_provenance_must_be_json_and_leave_the_card_alone(extra, tmp_path):
    with pytest.raises(WeightsRefused, match="not saved: "):
        save(Denoiser(SMALL).eval(), tmp_path / "net.safetensors", **extra)
    assert not list(tmp_path.iterdir())


def test_a_network_beyond_its_constraint_is_refused_and_not_changed(tmp_path):
    for network in (Denoiser(SMALL), Classifier(ClassifierArchitecture(height=8, width=8, stages=((4, 1),), dense_features=8))):
        network.eval()
        block = next(m for m in network.modules() if hasattr(m, "linear"))
        with torch.no_grad():
            block.linear.weight.mul_(100)
        monster = copy.deepcopy(network.state_dict())
        with pytest.raises(WeightsRefused, match=r"call stablenet.enforce\(network, certified=True\) first"):
            save(network, tmp_path / "net.safetensors")
        assert all(torch.equal(monster[k], v) for k, v in network.state_dict().items())
        enforce(network, certified=True)
        save(network, tmp_path / "net.safetensors")
