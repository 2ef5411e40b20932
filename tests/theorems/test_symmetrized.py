"""Averaging over flips and turns keeps the certificate and makes the map commute with them."""

from __future__ import annotations

import pytest
import torch

import stablenet
from stablenet.networks import Symmetrized
from stablenet.networks.symmetrized import GROUP
from tests.attack import attack
from tests.inventory import ARCHITECTURES, wild_denoiser


@pytest.mark.parametrize("elements", [2, 4, 8])
@pytest.mark.parametrize("name", ["anchored", "color"])
def test_the_certificate_stays_and_resists_an_attack(name, elements):
    denoiser = wild_denoiser(ARCHITECTURES[name])
    network = Symmetrized(denoiser, elements)
    certificate = stablenet.certify(network).certificate
    inner = stablenet.certify(denoiser).certificate
    assert certificate.lipschitz <= inner.lipschitz * (1 + 1e-12)
    assert certificate.averagedness <= inner.averagedness * (1 + 1e-12)
    found = attack(
        lambda x: network(x, 0.1), (network.channels, 12, 15), averagedness=certificate.averagedness, iterations=6, pairs=4
    )
    assert found.lipschitz <= 1 + 1e-6
    assert found.averagedness <= certificate.averagedness * (1 + 1e-6)


@pytest.mark.parametrize("elements", [2, 4, 8])
def test_it_commutes_with_its_own_group_and_the_plain_network_does_not(elements):
    denoiser = wild_denoiser(ARCHITECTURES["anchored"])
    network = Symmetrized(denoiser, elements)
    x = torch.rand(1, 1, 11, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for axes, transposed in GROUP[1:elements]:

        def move(image: torch.Tensor, axes=axes, transposed=transposed) -> torch.Tensor:
            image = image.flip(axes)
            return image.transpose(2, 3) if transposed else image

        torch.testing.assert_close(network(move(x), 0.1), move(network(x, 0.1)), rtol=1e-10, atol=1e-12)
        assert not torch.allclose(denoiser(move(x), 0.1), move(denoiser(x, 0.1)), rtol=1e-6)


def test_other_numbers_are_refused():
    with pytest.raises(ValueError, match="elements must be 2, 4 or 8, got 3"):
        Symmetrized(wild_denoiser(ARCHITECTURES["anchored"]), 3)


def test_a_number_changed_afterwards_is_not_certified():
    network = Symmetrized(wild_denoiser(ARCHITECTURES["anchored"]))
    network.elements = 16
    with pytest.raises(stablenet.NotCertified, match="16 isometries"):
        stablenet.certify(network)
