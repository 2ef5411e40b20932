"""An exported classifier is plain layers with the outputs, the radii and the certificate of the one it came from."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import stablenet.export
from stablenet import certify
from stablenet.certificate import NotCertified
from stablenet.enforcement import Enforced
from stablenet.export import FORMATS, WithRadius, card_path, plain, write
from stablenet.networks import Classifier, Denoiser, DenoiserArchitecture, Symmetrized
from stablenet.robustness.certification import certified_radius, in_double
from stablenet.weights import save
from tests.inventory import ARCHITECTURES, CLASSIFIERS, wild_classifier, wild_denoiser
from tests.theorems.test_rounding_of_logits import between


def images(network: Classifier, count: int) -> Tensor:
    a = network.architecture
    return torch.rand(count, a.channels, a.height, a.width, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_plain_keeps_outputs_and_certificate_and_drops_the_machinery(name):
    network = wild_classifier(CLASSIFIERS[name]).float().eval()
    bare = plain(network)
    x = images(network, 4)
    torch.testing.assert_close(bare(x), network(x), rtol=0, atol=1e-6)
    assert certify(bare).certificate == certify(network).certificate
    assert torch.equal(bare.pairwise_lipschitz(), network.pairwise_lipschitz())
    assert not [m for m in bare.modules() if isinstance(m, Enforced)]
    assert not list(bare.buffers())
    assert not [p for p in bare.parameters() if p.requires_grad]
    assert [m for m in network.modules() if isinstance(m, Enforced)], "the original must stay as it was"


def test_plain_of_a_denoiser():
    network = Denoiser(DenoiserArchitecture(features=4, kernel_size=3, blocks=2)).eval()
    x = torch.rand(1, 1, 9, 12)
    torch.testing.assert_close(plain(network)(x, 0.1), network(x, 0.1))
    assert certify(plain(network)).certificate == certify(network).certificate


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_radius_in_the_graph_is_below_the_certified_one_and_near(name):
    network = wild_classifier(CLASSIFIERS[name]).float().eval()
    x = images(network, 40)
    logits, radii = WithRadius(network)(x)
    exact = certified_radius(logits, network.pairwise_lipschitz(), rounding=0)
    assert (radii.double() <= exact).all()
    torch.testing.assert_close(radii.double(), exact, rtol=1e-5, atol=1e-7)


def read_back(path, x: Tensor) -> tuple[Tensor, Tensor]:
    if path.suffix == ".pt2":
        return torch.export.load(path).module()(x)
    import onnxruntime

    found = onnxruntime.InferenceSession(str(path)).run(None, {"images": x.numpy()})
    return tuple(map(torch.from_numpy, found))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", ["average", "unshuffle", "heun-substeps"])
def test_files_give_the_same_for_any_batch(name, suffix, tmp_path):
    network = wild_classifier(CLASSIFIERS[name]).float().eval()
    path = write(network, tmp_path / f"net{suffix}")
    for count in (1, 2, 7):
        x = images(network, count)
        logits, radii = read_back(path, x)
        torch.testing.assert_close(logits, network(x), rtol=0, atol=1e-5)
        torch.testing.assert_close(radii, WithRadius(network)(x)[1], rtol=0, atol=1e-5)
    card = json.loads(card_path(path).read_text())
    assert card == metadata(path) | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert card["certificate"]["lipschitz"] == certify(network).lipschitz
    assert torch.equal(
        torch.tensor(card["certificate"]["pairwise_lipschitz"]).double(), network.pairwise_lipschitz().float().double()
    )


def test_a_file_that_does_not_agree_is_not_left(tmp_path, monkeypatch):
    network = wild_classifier(CLASSIFIERS["average"]).float().eval()

    def wrong(program, whole, text):
        return b"x", lambda x: (network(x) + 1e-3, torch.zeros(len(x)))

    monkeypatch.setattr(stablenet.export, "_onnx", wrong)
    with pytest.raises(ValueError, match="would differ by 0.001"):
        write(network, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def metadata(path: Path) -> dict:
    """The card that is inside the file."""
    if path.suffix == ".pt2":
        extra = {"stablenet.json": ""}
        torch.export.load(path, extra_files=extra)
        return json.loads(extra["stablenet.json"])
    import onnx

    return json.loads({entry.key: entry.value for entry in onnx.load(path).metadata_props}["stablenet"])


def denoised(path: Path, x: Tensor, sigma: Tensor) -> Tensor:
    if path.suffix == ".pt2":
        return torch.export.load(path).module()(x, sigma)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return torch.from_numpy(session.run(None, {"x": x.numpy(), "sigma": sigma.numpy()})[0])


@pytest.mark.parametrize(("name", "suffix"), [("anchored", ".pt2"), ("full-resolution", ".onnx"), ("step-heun", ".onnx")])
def test_denoisers_of_any_size_noise_and_number(name, suffix, tmp_path):
    network = wild_denoiser(ARCHITECTURES[name]).float().eval()
    path = write(network, tmp_path / f"net{suffix}")
    for shape in ((1, 8, 8), (2, 9, 14), (3, 16, 7), (5, 31, 33)):
        x = torch.rand(shape[0], network.channels, *shape[1:])
        sigma = torch.linspace(0, network.max_noise_level, shape[0])
        torch.testing.assert_close(denoised(path, x, sigma), network(x, sigma), rtol=0, atol=1e-5)
    beyond, highest = torch.full((5,), 9.0), torch.full((5,), network.max_noise_level)
    assert torch.equal(denoised(path, x, beyond), denoised(path, x, highest)), "no certificate for other noise levels"
    card, found = json.loads(card_path(path).read_text()), certify(network)
    assert card["certificate"] == {"lipschitz": found.lipschitz, "averagedness": found.averagedness}
    assert card.pop("sha256") == hashlib.sha256(path.read_bytes()).hexdigest()
    assert metadata(path) == card


def test_a_symmetrized_denoiser(tmp_path):
    network = Symmetrized(wild_denoiser(DenoiserArchitecture(features=4, kernel_size=3, blocks=1)).float().eval(), 2)
    path = write(network, tmp_path / "net.onnx")
    x, sigma = torch.rand(2, 1, 9, 14), torch.tensor([0.02, 0.1])
    torch.testing.assert_close(denoised(path, x, sigma), network(x, sigma), rtol=0, atol=1e-5)
    assert metadata(path)["certificate"]["averagedness"] == certify(network).averagedness


def test_radii_in_files_are_those_of_the_exact_network(tmp_path):
    """At images between two classes, where float32 takes one for the other."""
    network = wild_classifier(CLASSIFIERS["unshuffle"]).float().eval()
    path = write(network, tmp_path / "net.onnx")
    x = between(network, images(network, 30))
    logits, radii = read_back(path, x)
    exact = in_double(network)
    wide, best = exact(x.double()), logits.argmax(1)
    margins = wide.gather(1, best[:, None]) - wide
    allowed = margins / exact.pairwise_lipschitz()[best].clamp_min(1e-300)
    allowed.scatter_(1, best[:, None], torch.inf)
    assert (radii.double() <= allowed.amin(1).clamp_min(0)).all()
    assert float(allowed.amin(1).min()) < 1e-6, "images farther from the border tell nothing"


def test_an_altered_network_leaves_nothing(tmp_path):
    network = wild_classifier(CLASSIFIERS["average"]).float().eval()
    network.register_forward_hook(lambda module, inputs, output: 10 * output)
    for altered in (network, Tempered(CLASSIFIERS["average"])):
        with pytest.raises((NotCertified, ValueError), match="hook|does not inherit"):
            write(altered, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


class Tempered(Classifier):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0.1


def test_a_file_without_its_card_is_not_left(tmp_path, monkeypatch):
    network = Denoiser(DenoiserArchitecture(features=4, kernel_size=3, blocks=1)).eval()
    (tmp_path / "net.pt2.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write(network, tmp_path / "net.pt2")
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt2.json"]

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left on device"):
        write(network, tmp_path / "other.pt2")
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt2.json"]


def test_bad_requests(tmp_path):
    network = Classifier(CLASSIFIERS["average"])
    with pytest.raises(ValueError, match=".onnx or .pt2"):
        write(network, tmp_path / "net.h5")
    with pytest.raises(ValueError, match="only classifiers"):
        write(nn.Linear(2, 2), tmp_path / "net.onnx")


def test_from_the_command_line(tmp_path, capsys):
    from stablenet.cli import main

    save(wild_classifier(CLASSIFIERS["unshuffle"]).float(), tmp_path / "net.safetensors")
    main(["export", str(tmp_path / "net.safetensors"), str(tmp_path / "net.pt2")])
    assert "net.pt2.json" in capsys.readouterr().out
    assert (tmp_path / "net.pt2").is_file()
    main(["certify", str(tmp_path / "net.safetensors")])  # its own card is as it was
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "net.safetensors"), str(tmp_path / "net.pickle")])
    assert "error: cannot export to net.pickle" in capsys.readouterr().err
