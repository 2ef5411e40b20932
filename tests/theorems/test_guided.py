"""With its guide held fixed a guided denoiser is firmly nonexpansive, whatever guide and weights (docs/theorems.md, V3)."""

from __future__ import annotations

import pytest
import torch

import stablenet.certificate
from stablenet import potential
from stablenet.certificate import NotCertified
from stablenet.networks import Guided, Ridge
from stablenet.networks.guided import Guidance
from tests.attack import attack
from tests.inventory.potentials import SHAPES, wild_ridge

SIGMA = 0.08


def wild_guided(seed: int = 0) -> Guided:
    """A network that sets weights anywhere between 0 and the largest."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        guided = Guided(Guidance(wild_ridge(SHAPES["weakly-convex"]), 8, (1, 2), 12.0))
        torch.nn.init.normal_(guided.weighing.out.weight, std=3.0)
    return guided.double().requires_grad_(False)


GUIDES = {
    "an image": lambda: torch.rand(1, 1, 9, 8, dtype=torch.float64),
    "zeros": lambda: torch.zeros(1, 1, 9, 8, dtype=torch.float64),
    "huge": lambda: 1e6 * torch.randn(1, 1, 9, 8, dtype=torch.float64),
}


def dense(function):
    eye = torch.eye(72, dtype=torch.float64)
    return torch.cat([function(e.view(1, 1, 9, 8)).flatten()[:, None] for e in eye], 1)


@pytest.mark.parametrize("guide", list(GUIDES))
@pytest.mark.parametrize("kind", ["network", "reweighting"])
def test_every_guide_gives_a_firmly_nonexpansive_map(guide, kind):
    torch.manual_seed(0)
    maker = wild_guided() if kind == "network" else wild_ridge(SHAPES["weakly-convex"]).double()
    frozen = maker.prepare(GUIDES[guide](), SIGMA)
    certificate = stablenet.certificate.certify(frozen).certificate
    assert certificate.is_firmly_nonexpansive
    curvature = dense(lambda x: frozen.gradient(x))
    resolvent = dense(lambda x: frozen.denoise(x, accuracy=1e-10).image)
    eye = torch.eye(72, dtype=torch.float64)
    assert torch.allclose(curvature, curvature.T, atol=1e-9)
    eigenvalues = torch.linalg.eigvalsh(curvature)
    assert eigenvalues[0] > -1e-9 and eigenvalues[-1] <= potential.certify(frozen).smoothness_above
    assert torch.allclose(resolvent @ (eye + curvature), eye, atol=1e-6)


def test_the_attack_finds_nothing_above_one():
    guided = wild_guided()
    frozen = guided.prepare(GUIDES["an image"](), SIGMA)
    matrix = torch.linalg.inv(torch.eye(72, dtype=torch.float64) + dense(lambda x: frozen.gradient(x)))
    found = attack(lambda x: (x.flatten(1) @ matrix.T).view_as(x), (1, 9, 8), averagedness=0.5)
    assert found.lipschitz <= 1 + 1e-9 and found.averagedness <= 0.5 + 1e-9


def test_a_guide_that_follows_x_expands():
    """y -> D_(g(y))(y) is no nonexpansive map, which is why no certificate speaks of it."""
    ridge = wild_ridge(SHAPES["weakly-convex"], curvature=2.5).double()
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def following(y):
        return ridge.prepare(y, SIGMA).denoise(y, accuracy=1e-9).image

    best = 0.0
    for seed in range(20):
        step = 1e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for _ in range(10):
            moved = following(x + step) - following(x)
            best = max(best, float(moved.norm() / step.norm()))
            step = 1e-3 * moved / moved.norm()
    assert best > 1.01


def test_the_error_is_a_bound():
    frozen = wild_guided().prepare(GUIDES["an image"](), SIGMA)
    y = torch.rand(1, 1, 9, 8, dtype=torch.float64)
    exact = frozen.denoise(y, accuracy=1e-11).image
    for start in (None, torch.zeros_like(y), exact):
        for accuracy in (1e-1, 1e-2, 1e-3):
            found = frozen.denoise(y, accuracy=accuracy, start=start)
            assert (found.image - exact).norm() <= found.error + 1e-9 and found.error <= accuracy * 72**0.5
    assert torch.equal(found.image, exact)
    with pytest.raises(ValueError, match="guide's shape"):
        frozen.denoise(y, start=y[..., :4])


@pytest.mark.parametrize("level", [0.03, 0.05, 0.0625, 0.1])
def test_a_map_accepts_the_level_that_it_was_prepared_for(level):
    guide = torch.full((1, 1, 9, 8), 0.5)
    assert wild_guided().float().prepare(guide, level).max_noise_level >= level


def test_an_untrained_network_is_iterative_reweighting():
    ridge = wild_ridge(SHAPES["convex"]).double()
    guided = Guided(Guidance(ridge, 4, (1,), 1e3)).double()
    guide = GUIDES["an image"]()
    torch.testing.assert_close(
        guided.prepare(guide, SIGMA).weights, ridge.prepare(guide, SIGMA).weights.clamp(3e-2, 980), rtol=1e-6, atol=0
    )


def test_what_would_break_the_theorem_is_refused():
    guided, image = wild_guided(), GUIDES["an image"]()
    with pytest.raises(ValueError, match="requires a gradient"):
        guided.prepare(image.clone().requires_grad_(True), SIGMA)
    with pytest.raises(ValueError, match="requires a gradient"):
        guided.ridge.prepare(image.clone().requires_grad_(True), SIGMA)
    with pytest.raises(ValueError, match="needs a guide"):
        guided(image, SIGMA)
    frozen = guided.prepare(image, SIGMA)
    with pytest.raises(ValueError, match="prepared for"):
        frozen(image, 2 * SIGMA)
    with pytest.raises(ValueError, match="guide's shape"):
        frozen(image[..., :4], SIGMA)
    frozen.weights[0, 0, 0, 0, 0] = -1e-3
    with pytest.raises(NotCertified, match=">= 0"):
        stablenet.certificate.certify(frozen)
    frozen.weights[0, 0, 0, 0, 0] = float("inf")
    with pytest.raises(NotCertified, match="finite"):
        potential.certify(frozen)
    with pytest.raises(ValueError, match="Ridge"):
        Guided(Guidance(torch.nn.Identity(), 4, (1,), 1.0))
    assert isinstance(guided.ridge, Ridge)


def test_the_noise_of_the_measurement_is_seen_and_changes_no_theorem():
    guided, image = wild_guided(), GUIDES["an image"]()
    same, behind = guided.prepare(image, SIGMA), guided.prepare_behind(image, SIGMA, SIGMA / 4)
    assert torch.equal(same.weights, guided.prepare_behind(image, SIGMA, SIGMA).weights)
    assert not torch.allclose(same.weights, behind.weights)
    assert stablenet.certificate.certify(behind).certificate.is_firmly_nonexpansive
    for wrong in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="noise_level"):
            guided.prepare_behind(image, SIGMA, wrong)
