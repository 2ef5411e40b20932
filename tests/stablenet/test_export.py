"""An exported classifier is plain layers with the outputs, the radii and the certificate of the one it came from."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from torch import Tensor, nn

import stablenet.export
from stablenet import certify
from stablenet.enforcement import Enforced
from stablenet.export import FORMATS, WithRadius, card_path, plain, write
from stablenet.networks import Classifier, Denoiser, DenoiserArchitecture
from stablenet.robustness.certification import certified_radius
from stablenet.weights import save
from tests.inventory import CLASSIFIERS, wild_classifier


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
    exact = certified_radius(logits, network.pairwise_lipschitz())
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
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["certificate"]["lipschitz"] == certify(network).lipschitz
    assert torch.equal(
        torch.tensor(card["certificate"]["pairwise_lipschitz"]).double(), network.pairwise_lipschitz().float().double()
    )


def test_a_file_that_does_not_agree_is_not_left(tmp_path, monkeypatch):
    network = wild_classifier(CLASSIFIERS["average"]).float().eval()

    def wrong(program, path):
        path.write_bytes(b"x")
        return lambda x: [network(x) + 1e-3, torch.zeros(len(x))]

    monkeypatch.setattr(stablenet.export, "_write_onnx", wrong)
    with pytest.raises(ValueError, match="would differ by 0.001"):
        write(network, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


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
