"""The limit of a block's steps is firmly nonexpansive, with an error that is bounded and a level that acts by scaling (K6)."""

from __future__ import annotations

import math

import pytest
import torch

import stablenet
from stablenet import potential, proximal
from stablenet.blocks import NOK
from stablenet.linear import frames, parseval
from stablenet.networks import NOKLimit
from tests.attack import attack
from tests.inventory.limits import LIMITS, Wavelets, vectors
from tests.inventory.proximal import CONVEX, NONCONVEX
from tests.theorems.test_block_descent import solved

BOUNDED = {
    "shifted": (proximal.ShiftedNonnegative(0.2), 1.0),
    "soft": (proximal.SoftThreshold(0.3), 1.0),
    "group-soft": (proximal.GroupSoftThreshold(0.4, 4), 1.0),
    "relu": (proximal.Nonnegative(), 0.9),
    "leaky": (proximal.LeakyNonnegative(0.3), 0.7),
    "soft-scaled": (proximal.SoftThreshold(0.3), 0.99),
}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_wavelets_of_these_tests_are_a_parseval_frame() -> None:
    u, y = draw(2, 1, 5, 4), draw(2, 4, 5, 4, seed=1)
    frame = Wavelets()
    torch.testing.assert_close(frame(frame.adjoint(u)), u, rtol=0, atol=1e-14)
    torch.testing.assert_close((frame(y) * u).sum(), (y * frame.adjoint(u)).sum(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", BOUNDED)
def test_the_error_bounds_the_distance_to_the_optimum(name: str) -> None:
    """Against cvxpy, from a few iterations to many; and the accuracy that was asked for is reached."""
    prox, scale = BOUNDED[name]
    limit, x = vectors(prox, scale=scale).eval(), 2 * draw(5, 5)
    exact = torch.stack([limit.block.frame(solved(limit.block.frame.dense(), limit.block.prox, u)) for u in x])
    for iterations in (1, 2, 5, 20, 200):
        limit.max_iterations = iterations
        found = limit.denoise(x, 1.0, accuracy=1e-12)
        distance = (found.image - exact).norm(dim=1)
        assert bool((distance <= found.error + 2e-6).all())
        assert iterations > 2 or float(found.error.max()) > 1e-3
    limit.max_iterations = 100_000
    for accuracy in (1e-1, 1e-3, 1e-5):
        found = limit.denoise(x, 1.0, accuracy=accuracy)
        assert bool((found.error <= accuracy * math.sqrt(5)).all())
        assert bool(((found.image - exact).norm(dim=1) <= found.error + 2e-6).all())


@pytest.mark.parametrize("name", BOUNDED)
def test_some_error_is_near_its_bound(name: str) -> None:
    """Not vacuous: after two iterations some error is above a tenth of its bound."""
    prox, scale = BOUNDED[name]
    limit, x = vectors(prox, scale=scale, size=8).eval(), 2 * draw(60, 5, seed=3)
    limit.max_iterations = 10_000
    exact = limit.denoise(x, 1.0, accuracy=1e-6).image
    limit.max_iterations = 2
    found = limit.denoise(x, 1.0, accuracy=1e-9)
    share = (found.image - exact).norm(dim=1) / found.error.clamp_min(1e-300)
    assert 0.1 < float(share.max()) <= 1


@pytest.mark.parametrize("name", LIMITS)
def test_an_image_limit_is_firmly_nonexpansive(name: str) -> None:
    limit = LIMITS[name]().eval()
    certificate = stablenet.certify(limit).certificate
    assert certificate.is_firmly_nonexpansive and certificate.lipschitz == getattr(limit.block.prox, "factor", 1.0)

    def exact(x: torch.Tensor) -> torch.Tensor:
        return limit(x, 0.5)

    found = attack(exact, (1, 4, 3), averagedness=0.5, iterations=6, pairs=4, distances=(0.1, 3.0))
    assert found.lipschitz <= certificate.lipschitz + 2e-2 and found.averagedness <= 0.5 + 2e-2  # up to the error, 1e-4


@pytest.mark.parametrize("name", BOUNDED)
def test_pairs_are_moved_firmly(name: str) -> None:
    """|dz|^2 <= c <du, dz>, up to the errors that are told."""
    prox, scale = BOUNDED[name]
    limit = vectors(prox, scale=scale).eval()
    limit.max_iterations = 100_000
    u, du = 2 * draw(300, 5), torch.logspace(-2, 1, 300, dtype=torch.float64)[:, None] * draw(300, 5, seed=1)
    z, w = (limit.denoise(v, 1.0, accuracy=1e-6) for v in (u, u + du))
    dz, slack = w.image - z.image, (w.error + z.error) * (2 + du.norm(dim=1))
    assert bool((dz.square().sum(1) <= scale * (du * dz).sum(1) + 2 * slack + 1e-12).all())
    assert stablenet.certify(limit).lipschitz == pytest.approx(scale, abs=1e-12)


def test_the_constant_of_a_scaled_limit_is_attained() -> None:
    """ReLU whose columns span the space: z = c u, shrunk by c."""
    limit = vectors(proximal.Nonnegative(), scale=0.8, size=40).eval()
    u = draw(6, 5)
    moved = limit.denoise(u, 1.0, accuracy=1e-8).image.norm(dim=1) / u.norm(dim=1)
    assert float(moved.min()) > 0.5 and float(moved.max()) <= 0.8 + 1e-6
    square = NOKLimit(NOK(frames.Haar(3, 3), proximal.LeakyNonnegative(0.999999), scale=0.8)).eval()
    u = square.block.frame(torch.ones(1, 3, dtype=torch.float64))
    torch.testing.assert_close(square.denoise(u, 1.0, accuracy=1e-9).image, 0.8 * u, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LIMITS)
def test_the_level_acts_by_scaling(name: str) -> None:
    """D(t x, t sigma) = t D(x, sigma), each of a batch at its own level."""
    limit, x = LIMITS[name]().eval(), draw(2, 1, 6, 5)
    one, other = limit.denoise(x, 0.2, accuracy=1e-7), limit.denoise(3 * x, 0.6, accuracy=1e-7)
    slack = 3 * float(one.error.max()) + float(other.error.max())
    assert float((3 * one.image - other.image).flatten(1).norm(dim=1).max()) <= slack
    both = limit.denoise(x, torch.tensor([0.2, 0.6]), accuracy=1e-7)
    apart = limit.denoise(x[1:], 0.6, accuracy=1e-7)
    assert float((both.image[1:] - apart.image).norm()) <= float(both.error[1] + apart.error[0])


def test_a_rotation_is_undone_and_its_defect_paid_for() -> None:
    class Turned(torch.nn.Module):
        """R = c Q, |R R^T - I| = |c^2 - 1|."""

        axis, dimension = -1, 5

        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor
            self.register_buffer("q", torch.linalg.qr(draw(5, 5, seed=8)).Q)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor * x @ self.q.T

        def adjoint(self, u: torch.Tensor) -> torch.Tensor:
            return self.factor * u @ self.q

    parseval(Turned)(lambda module: abs(module.factor**2 - 1) * (1 + 1e-12))
    frame, prox, x = frames.Haar(5, 12), proximal.SoftThreshold(0.3), draw(4, 5)
    turned = NOKLimit(NOK(frame, prox, rotation=Turned(1.0))).eval()
    straight = NOKLimit(NOK(frame, prox)).eval()
    expected = straight.denoise(x @ turned.block.rotations[0].q.T, 1.0, accuracy=1e-8).image @ turned.block.rotations[0].q
    torch.testing.assert_close(turned.denoise(x, 1.0, accuracy=1e-8).image, expected, rtol=0, atol=1e-6)
    assert stablenet.certify(turned).certificate.is_firmly_nonexpansive
    off = stablenet.certify(NOKLimit(NOK(frame, prox, rotation=Turned(1.0004)))).certificate
    assert off.averagedness is None and off.lipschitz == pytest.approx(1.0004**2, rel=1e-9)
    scaled = stablenet.certify(NOKLimit(NOK(frame, prox, rotation=Turned(1.0004), scale=0.99))).certificate
    assert scaled.is_firmly_nonexpansive and scaled.lipschitz == pytest.approx(0.99 * 1.0004**2, rel=1e-9)
    block = NOK(frame, prox, rotation=Turned(1.0004), steps=2)
    assert stablenet.certify(block).lipschitz == pytest.approx(1.0004 * math.sqrt(1.25), rel=1e-9)
    untied = NOK(frame, prox, rotation=Turned(1.0), steps=3, tied=False)
    assert stablenet.certify(untied).lipschitz == stablenet.certify(NOK(frame, prox, steps=3)).lipschitz
    assert len(untied.rotations) == 3 and untied(x).shape == (4, 12)
    for ask in (untied.objectives, untied.step, lambda x: NOKLimit(untied)):
        with pytest.raises(ValueError, match="tied=True"):
            ask(x)
    small = torch.nn.Module()
    small.dimension, small.axis = 4, -1
    with pytest.raises(TypeError, match="no proof of D D.T = I"):
        NOK(frame, prox, rotation=small)
    wrong = Turned(1.0)
    wrong.dimension = 4
    with pytest.raises(ValueError, match="rotation of 4 features along axis -1 does not fit"):
        NOK(frame, prox, rotation=wrong)


def test_single_precision_stays_within_its_bound() -> None:
    for name, make in LIMITS.items():
        x = draw(3, 1, 12, 10) * 0.3 + 0.5
        exact = make().eval().denoise(x, 0.1, accuracy=1e-7)
        single = make().eval().denoise(x.float(), 0.1, accuracy=1e-3)
        distance = (single.image.double() - exact.image).flatten(1).norm(dim=1)
        assert bool((distance <= single.error + exact.error + 1e-5).all()), name
        assert bool((single.error <= 1e-3 * math.sqrt(120)).all()), name


def test_recorded_gradients_are_those_of_the_map() -> None:
    limit, x = LIMITS["soft-scaled"]().eval(), draw(1, 1, 4, 4).requires_grad_()
    limit(x, 0.3).square().sum().backward()
    direction = draw(1, 1, 4, 4, seed=2)
    ends = [limit.denoise((x + t * direction).detach(), 0.3, accuracy=1e-9).image.square().sum() for t in (1e-4, -1e-4)]
    torch.testing.assert_close((x.grad * direction).sum(), (ends[0] - ends[1]) / 2e-4, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("prox", [*NONCONVEX.values(), CONVEX["nonnegative"], CONVEX["leaky"]], ids=repr)
def test_what_has_no_limit_or_no_bound_is_refused(prox: proximal.Proximal) -> None:
    told = "not convex" if not prox.convex else "nothing bounds the error .* give the block scale < 1"
    with pytest.raises(ValueError, match=told):
        vectors(prox)
    limit = vectors(proximal.SoftThreshold(0.1))
    limit.block.prox = prox
    for ask in (stablenet.certify, potential.bounded_error.of):
        with pytest.raises(stablenet.NotCertified, match=told):
            ask(limit)


@pytest.mark.parametrize(
    ("x", "sigma", "told"),
    [
        (torch.zeros(2, 2, 5, 4), 0.1, r"\(batch, 1, height, width\)"),
        (torch.zeros(1, 5, 4), 0.1, r"\(batch, 1, height, width\)"),
        (torch.zeros(0, 1, 5, 4), 0.1, "not empty"),
        (torch.full((1, 1, 4, 4), torch.inf), 0.1, "NaN or infinity"),
        (torch.zeros(1, 1, 4, 4), 25.0, "divided by 255"),
        (torch.zeros(1, 1, 4, 4), -0.1, r"sigma must lie in \[0, 1\]"),
        (torch.zeros(1, 1, 4, 4), None, "sigma, the noise level, is missing"),
        (torch.zeros(3, 1, 4, 4), torch.tensor([0.1, 0.2]), "one per image"),
    ],
)
def test_what_is_no_image_is_refused(x: torch.Tensor, sigma: float, told: str) -> None:
    limit = LIMITS["soft"]().eval()
    for ask in (limit, limit.denoise):
        with pytest.raises(ValueError, match=told):
            ask(x, sigma)
    with pytest.raises(ValueError, match="accuracy must be positive"):
        limit.denoise(torch.zeros(1, 1, 4, 4), 0.1, accuracy=0.0)
    with pytest.raises(ValueError, match="must be positive"):
        NOKLimit(limit.block, max_noise_level=0.0)
    with pytest.raises(ValueError, match="2 axes"):
        vectors(proximal.SoftThreshold(0.1))(torch.zeros(2, 3, 5), 0.1)
