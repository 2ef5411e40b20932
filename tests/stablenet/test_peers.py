"""The networks that ours are compared with: none is affine, and all have about as many parameters."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from stablenet.networks.classifier import ClassifierArchitecture

PACKAGES = {"SLL": "orthogonium", "AOL": "orthogonium", "AOC": "orthogonium", "torchlip": "deel.torchlip"}
NAMES = ("ours, Euler", "ours, Heun", "ours, RK4", *PACKAGES, "ResNet", "ResNet, spectral normalization")


@pytest.fixture
def peers(monkeypatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2] / "benchmarks"), *sys.path])
    import peers

    return peers


def test_every_network_is_tried(peers):
    assert set(NAMES) == {*peers.TABLEAUS, *peers.PEERS, *peers.FREE}


@pytest.mark.parametrize("name", NAMES)
def test_not_affine(name, peers):
    """As it is trained: what is linear between its nonlinearities must not be compared as if it had none."""
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    torch.manual_seed(0)
    network = peers.build(name, ClassifierArchitecture(stages=((8, 1), (32, 1)), dense_features=32, height=16, width=16))
    with torch.no_grad():
        for parameter in network.parameters():  # a residual block begins as the identity
            parameter.add_(0.1 * torch.randn_like(parameter))
        a, b = torch.rand(2, 16, 1, 16, 16)
        middle, ends = network((a + b) / 2), (network(a) + network(b)) / 2
        assert float((middle - ends).norm()) > 1e-3 * float((network(a) - network(b)).norm())


@pytest.mark.parametrize("name", NAMES)
def test_as_many_parameters(name, peers):
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    architecture = ClassifierArchitecture()
    counts = [sum(p.numel() for p in peers.build(n, architecture).parameters()) for n in (name, "ours, Euler")]
    assert 0.9 < counts[0] / counts[1] < 1.1
