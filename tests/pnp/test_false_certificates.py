"""A certificate that understates by 5 percent is caught by the watch of each algorithm, and of each scheme."""

from __future__ import annotations

import deepinv
import pytest
import torch

import pnp
from pnp.algorithms import Algorithm
from stablenet.certificate import Certificate
from tests.inventory.algorithms import ALGORITHMS
from tests.inventory.denoisers import Affine
from tests.inventory.schemes import SCHEMES

EXPANDING = 1.05


def hidden() -> pnp.Problem:
    """Half of the pixels are not measured: there the denoiser is alone, and its expansion is that of the map."""
    mask = (torch.arange(64).reshape(1, 8, 8) % 2).double()
    physics = deepinv.physics.Inpainting(img_size=(1, 8, 8), mask=mask)
    y = physics.A(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    return pnp.pose(y, physics, noise_level=0.03)


def run(algorithm: Algorithm, scheme: object, factor: float) -> pnp.Solution:
    start = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return pnp.solve(
        algorithm,
        hidden(),
        pnp.prior(Affine(factor, Certificate(1.0, 0.5))),
        scheme=scheme,
        stop=pnp.Stop(1e-7, 60),
        start=start,
        denoiser_noise_level=0.05,
    )


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "condat-vu-box"])
def test_an_understated_certificate_is_caught(name: str) -> None:
    with pytest.raises(pnp.GuaranteeViolated, match=r"image \d rose from .* at iteration \d+"):
        run(ALGORITHMS[name], pnp.Plain(), EXPANDING)


def test_with_the_box_it_is_caught_before_the_box_is_met() -> None:
    with pytest.raises(pnp.GuaranteeViolated, match="image 0 rose from"):
        run(pnp.CondatVu(box=True, dual_step_size=1e-3), pnp.Plain(), EXPANDING)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_notices(scheme: str) -> None:
    with pytest.raises(pnp.GuaranteeViolated, match=r"image \d .* from .* at iteration \d+, which the theorem excludes"):
        run(pnp.PGD(), SCHEMES[scheme], EXPANDING)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_true_certificate_is_not_accused(name: str) -> None:
    run(ALGORITHMS[name], pnp.Plain(), 1.0)


@pytest.mark.parametrize("scheme", ["halpern", "anderson"])
def test_an_overstated_averagedness_is_noticed_where_pairs_are_watched(scheme: str) -> None:
    """A reflection is nonexpansive, and not firmly so."""
    with pytest.raises(pnp.GuaranteeViolated, match="moved apart"):
        run(pnp.PGD(), SCHEMES[scheme], -1.0)
