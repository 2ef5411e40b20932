"""docs/extending.md is true: the code in it is that of the package, and a toy of each kind is added as a user would add it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import deepinv
import pytest
import torch
from torch import Tensor, nn

import pnp
import stablenet
from pnp.algorithms.protocol import Applied, Denoise, Needs, grounded
from pnp.guarantees import Guarantee, Nonincreasing, proximal_gradient
from pnp.points import Point, combine, length
from stablenet import blocks, linear, sectors, spectral
from stablenet.butcher import ButcherTableau
from stablenet.certificate import Certificate, CertificateTree
from stablenet.linear.tracking import Power
from stablenet.spectral.bounds import linear_function
from tests.attack import attack

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_pages_show_the_files_as_they_are(page):
    spec = importlib.util.spec_from_file_location("include", ROOT / "docs/include.py")
    include = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(include)
    assert include.included(page.read_text()) == page.read_text(), "run python docs/include.py"


TABLEAU = ButcherTableau([[0, 0], [Fraction(3, 4), 0]], [Fraction(1, 3), Fraction(2, 3)], "toy")


class SoftSign(nn.Module):
    """u / (1 + |u|), slopes in (0, 1]."""

    def forward(self, u: Tensor) -> Tensor:
        return u / (1 + u.abs())


@stablenet.activations.slopes(SoftSign)
def _slopes(module: SoftSign) -> tuple[float, float]:
    return 0.0, 1.0


class Gains(nn.Module):
    """x -> w x, entry by entry: its own adjoint, of norm max |w|."""

    strips = None

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.outputs, self.example_shape = entries, (entries,)
        self.weight = nn.Parameter(torch.linspace(-3, 2, entries))

    def forward(self, x: Tensor, kernel: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        y = x * (self.weight if kernel is None else kernel)
        return y if bias is None else y + bias

    def adjoint(self, y: Tensor, size: Sequence[int] | None = None, kernel: Tensor | None = None) -> Tensor:
        return self.forward(y, kernel)

    def kernel(self, weight: Tensor) -> Tensor:
        return weight

    def expand(self, values: Tensor) -> Tensor:
        return values

    def tracker(self) -> Power:
        return Power(self)


@linear.block_map(Gains)
def _map(module: Gains) -> Gains:
    return module


@spectral.bound(Gains)
def _bound(module: Gains) -> float:
    return float(module.weight.detach().abs().max())


@linear_function(Gains)
def _function(module: Gains):
    return module.double(), module.example_shape


def test_a_tableau_an_activation_and_a_map_make_a_block():
    block = blocks.GradientFlow(Gains(5), SoftSign(), tableau=TABLEAU).double()
    optimizer = torch.optim.SGD(block.parameters(), 0.5)
    for _ in range(4):
        optimizer.zero_grad()
        (-block(torch.ones(2, 5, dtype=torch.float64)).square().sum()).backward()
        optimizer.step()
        stablenet.enforce(block)
    stablenet.enforce(block.eval(), certified=True)
    certificate = stablenet.certify(block)
    assert certificate.lipschitz == 1 and certificate.averagedness < 1
    found = attack(block, (5,), averagedness=certificate.averagedness)
    assert found.lipschitz <= 1 and found.averagedness <= certificate.averagedness + 1e-9


class Turn(nn.Module):
    """(x, y, ...) -> (y, -x, ...): a rotation of pairs."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return torch.cat([second, -first], 1)


@stablenet.certificate.rule(Turn)
def _turn(module: Turn) -> CertificateTree:
    return CertificateTree("Turn", Certificate(1.0), "a rotation")


def test_a_module_with_a_rule_is_part_of_a_network():
    assert stablenet.certify(nn.Sequential(Turn(), nn.ReLU())).lipschitz == 1

    class Other(Turn):
        """A subclass inherits no proof."""

    with pytest.raises(stablenet.NotCertified, match="does not inherit"):
        stablenet.certify(Other())


@dataclass(frozen=True)
class Boxed:
    """phi = 0 for |y_i| <= 1, else infinity; h(v) = clamp(v, -1, 1)."""

    convex = True

    def value(self, y: Tensor, axis: int = -1) -> Tensor:
        return torch.where((y.abs() > 1).any(axis), torch.inf, 0.0).to(y.dtype)

    def prox(self, v: Tensor, axis: int = -1) -> Tensor:
        return v.clamp(-1, 1)


def test_a_proximal_map_makes_a_block_that_descends_and_with_its_sector_a_certificate():
    block = blocks.NOK(linear.frames.Haar(3, 10), Boxed(), steps=2).eval()
    x = 4 * torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert bool((block.objectives(x).diff(dim=0) <= 1e-12).all())
    with pytest.raises(stablenet.NotCertified, match="sector.*Boxed"):
        stablenet.certify(block)
    sectors.sector(Boxed)(lambda prox: sectors.Sector(Fraction(0), Fraction(1)))
    assert stablenet.certify(block).lipschitz == pytest.approx(1.25**0.5)
    assert stablenet.certify(block.step(x)).averagedness == pytest.approx(2 / 3)
    assert attack(block.step(x[:1]), (10,), averagedness=2 / 3).averagedness <= 2 / 3 + 1e-9


class Mirror(deepinv.physics.LinearPhysics):
    """Half the mirror image: A^T A = I/4."""

    def A(self, x: Tensor, **_: object) -> Tensor:
        return x.flip(-1) / 2

    def A_adjoint(self, y: Tensor, **_: object) -> Tensor:
        return y.flip(-1) / 2


def posed() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 12, 14, generator=generator)
    return x, x.flip(-1) / 2 + 0.03 * torch.randn(x.shape, generator=generator)


def test_a_physics_rule():
    _, y = posed()
    denoiser = stablenet.pretrained("denoiser-gray-small")
    with pytest.raises(pnp.Refused, match="Mirror"):
        pnp.solve(pnp.PGD(), y, Mirror(), denoiser, noise_level=0.03)

    @pnp.physics.rule(Mirror)
    def quarter(physics: Mirror) -> pnp.Smoothness:
        return pnp.Smoothness(0.25, "A^T A = I/4", strong_convexity=0.25, convexity_reason="A^T A = I/4")

    solution = pnp.solve(pnp.PGD(), y, Mirror(), denoiser, noise_level=0.03)
    assert solution.converged and "A^T A = I/4" in str(solution.guarantee)

    @pnp.physics.rule(Mirror)
    def wrong(physics: Mirror) -> pnp.Smoothness:
        return pnp.Smoothness(0.2, "a guess")

    with pytest.raises(pnp.Refused):  # found out by the probing of the problem
        pnp.solve(pnp.PGD(), y, Mirror(), denoiser, noise_level=0.03)


@dataclass(frozen=True)
class Lazy:
    """x+ = (x + D(x - gamma grad f(x)))/2: as proximal gradient, but half asleep."""

    step_size: float | None = None
    relaxation: ClassVar[float] = 1.0
    needs: ClassVar[Needs] = Needs(frozenset({"gradient"}), Fraction(1), strict=True)

    def settle(self, problem, prior) -> Lazy:
        return replace(self, step_size=pnp.PGD(self.step_size).settle(problem, prior).step_size)

    def denoiser_noise_level(self, problem, prior) -> float:
        return pnp.PGD(self.step_size, 1.0).denoiser_noise_level(problem, prior)

    def guarantee(self, problem, prior) -> Guarantee:
        theorem = proximal_gradient(prior.certificate, problem.smoothness.value, step_size=self.step_size)
        return grounded(replace(theorem, averagedness=theorem.averagedness / 2), problem, prior)

    def start(self, problem, image: Tensor) -> Point:
        return (image,)

    def apply(self, problem, denoise: Denoise, point: Point, *, accuracy: float) -> Applied:
        (x,) = point
        x = (x + denoise(x - self.step_size * problem.gradient(x))) / 2
        return Applied((x,), x, x.new_zeros(len(x)))

    def estimate(self, problem, denoise: Denoise, point: Point) -> Tensor:
        return point[0]

    def norm(self, problem, difference: Point) -> Tensor:
        return length(difference)


@dataclass(frozen=True)
class Halved:
    """x+ = (x + T x)/2, whose residual never increases."""

    def guarantee(self, base: Guarantee) -> Guarantee:
        return replace(base, watch=Nonincreasing(0.5))

    def init(self, point: Point, guarantee: Guarantee) -> None:
        return None

    def next(self, k: int, point: Point, image: Point, residual: Tensor, memory: None) -> tuple[Point, None]:
        return combine(0.5, point, 0.5, image), None


def test_an_algorithm_and_a_scheme():
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(1, 1, 12, 14, generator=generator, dtype=torch.float64)
    problem = pnp.pose(y, deepinv.physics.Denoising(), noise_level=0.03)
    prior = pnp.prior(stablenet.pretrained("denoiser-gray-small").double())
    stop = pnp.Stop(1e-9, 3000)
    usual = pnp.solve(pnp.PGD(), problem, prior, stop=stop)
    for algorithm, scheme in ((Lazy(), pnp.Plain()), (Lazy(), pnp.Anderson()), (pnp.PGD(), Halved()), (Lazy(), Halved())):
        found = pnp.solve(algorithm, problem, prior, scheme=scheme, stop=stop)
        assert found.converged
        assert torch.allclose(found.estimate, usual.estimate, atol=1e-6)
    with pytest.raises(pnp.Refused, match="step_size"):
        pnp.solve(Lazy(3.0), problem, prior)
