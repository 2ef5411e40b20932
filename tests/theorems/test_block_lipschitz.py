"""T steps are L_T-Lipschitz and a step 2/3-averaged, nearly attained; what jumps is refused (docs/theorems.md, K3 to K5)."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

import stablenet
from stablenet import proximal
from stablenet.blocks import NOK, Reconstructed
from stablenet.blocks.nok import NONEXPANSIVE_SCALE, DescentStep, lipschitz_of_steps
from stablenet.linear import frames, parseval
from stablenet.linear.rotation import Cayley, Householder
from stablenet.rounding import root_up
from stablenet.sectors import Sector, sector
from tests.attack import attack
from tests.inventory.proximal import CONVEX, NONCONVEX

FIRM = Sector(Fraction(0), Fraction(1))
FRAMES = {
    "haar": lambda: frames.Haar(2, 8),
    "dct": lambda: frames.DCT(3, 8),
    "channels": lambda: frames.Pointwise(frames.DFT(2, 8)),
    "cosines": lambda: frames.Cosines(1, 2),
}


def worst_found(steps: int, size: int, *, dimension: int = 2, batch: int = 8, rows: bool = False) -> float:
    """Ascent on |y_T(x + e) - y_T(x)|/|e| (or |D y_T ...|/|e|) over the rows of D, x and e at once, with ReLU."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, size, dimension), (batch, 1, dimension), (batch, 1, dimension))
    free = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    optimizer, best = torch.optim.Adam(free, lr=0.03), 0.0
    for _ in range(120):
        d = torch.linalg.qr(free[0])[0].mT
        ends = []
        for x in (free[1] + free[2], free[1]):
            y = torch.relu(x @ d)
            for _ in range(steps - 1):
                y = torch.relu(y + (x - y @ d.mT) @ d)
            ends.append(y @ d.mT if rows else y)
        ratio = (ends[0] - ends[1]).flatten(1).norm(dim=1) / free[2].flatten(1).norm(dim=1)
        best = max(best, float(ratio.detach().max()))
        optimizer.zero_grad()
        (-ratio.log().sum()).backward()
        optimizer.step()
    return best


@pytest.mark.parametrize(("steps", "size", "told", "near"), [(2, 6, 1.118, 0.998), (3, 8, 1.286, 0.97), (20, 24, 3.139, 0.9)])
def test_the_constant_is_nearly_attained(steps: int, size: int, told: float, near: float) -> None:
    bound = float(lipschitz_of_steps(FIRM, steps))
    assert bound == pytest.approx(told, abs=1e-3)
    found = worst_found(steps, size, batch=4 if steps == 20 else 24, dimension=1 if steps == 20 else 2)
    assert near * bound < found <= bound * (1 + 1e-12)


@pytest.mark.parametrize(("steps", "size", "told", "reached"), [(1, 6, 1.0, 0.99), (2, 6, 1.059, 1.02), (10, 12, 1.612, 1.02)])
def test_what_comes_back_is_not_nonexpansive_either(steps: int, size: int, told: float, reached: float) -> None:
    """x -> D y_T: (1 + L_T)/2 for the sector [0, 1], and a certificate says no more; ReLU reaches more than 1."""
    bound = float(lipschitz_of_steps(FIRM, steps, rows=True))
    assert bound == pytest.approx(told, abs=1e-3)
    assert bound == pytest.approx((1 + float(lipschitz_of_steps(FIRM, steps))) / 2, rel=1e-14)
    assert reached < worst_found(steps, size, batch=24, dimension=2, rows=True) <= bound * (1 + 1e-12)
    module = Reconstructed(NOK(frames.DFT(4, 12), proximal.Nonnegative(), steps=steps))
    assert stablenet.certify(module).lipschitz == pytest.approx(bound, rel=1e-14)


def test_both_constants_are_attained_where_maps_differ_from_step_to_step() -> None:
    """D = (1, 0): h_t projects onto the line through v/2 + |v|/2 (0, 1), at last that through v or v/2 + |v|/2 (1, 0)."""
    for steps in (1, 2, 5, 20):
        y = np.zeros(2)
        for t in range(steps):
            v = np.array([1.0, y[1]])
            size = np.linalg.norm(v)
            ends = {rows: v / 2 + size / 2 * np.array([1.0, 0.0]) if rows else v for rows in (True, False)}
            target = v / 2 + size / 2 * np.array([0.0, 1.0])
            for line in (target, *ends.values()):
                projected = line * (line @ v) / (line @ line)
                np.testing.assert_allclose(projected, line, rtol=0, atol=1e-12)  # it is what the projection makes of v
            if t < steps - 1:
                y = target
        assert ends[True][0] == pytest.approx(float(lipschitz_of_steps(FIRM, steps, rows=True)), rel=1e-12)
        assert np.linalg.norm(ends[False]) == pytest.approx(float(lipschitz_of_steps(FIRM, steps)), rel=1e-12)


def test_the_scale_that_makes_what_comes_back_nonexpansive() -> None:
    held = [Sector(Fraction(0), Fraction(c, 10**6)) for c in (828427, 828428)]
    assert 1 - 1e-6 < lipschitz_of_steps(held[0], 2000, rows=True) <= 1 < lipschitz_of_steps(held[1], 2000, rows=True)
    assert Fraction(828427, 10**6) < 2 * math.sqrt(2) - 2 < Fraction(828428, 10**6)


def test_the_recursion_in_its_closed_form() -> None:
    """sqrt(1 + q_(T-1)^2), q+ = (q + sqrt(1 + q^2))/2, never below it, and rounded up by less than 1e-40."""
    q = 0.0
    for steps in range(1, 60):
        bound = lipschitz_of_steps(FIRM, steps)
        assert float(bound) == pytest.approx(math.sqrt(1 + q * q), rel=1e-13)
        q = (q + math.sqrt(1 + q * q)) / 2
    assert float(lipschitz_of_steps(FIRM, 5)) == pytest.approx(1.599, abs=1e-3)
    assert float(lipschitz_of_steps(FIRM, 10)) == pytest.approx(2.224, abs=1e-3)
    exact = lipschitz_of_steps(FIRM, 2)
    assert Fraction(5, 4) <= exact**2 <= Fraction(5, 4) + Fraction(1, 10**40)
    for value in (Fraction(0), Fraction(1), Fraction(2), Fraction(1, 3), Fraction(1, 2**400)):
        assert root_up(value) ** 2 >= value and (value == 0 or max(0, root_up(value) - Fraction(1, 2**159)) ** 2 < value)


def test_the_bound_of_one_step_is_a_bound_over_the_whole_ball() -> None:
    """(p, q) of the recursion against every image in the ball that the sector leaves: the largest parts by brute force."""
    rng = np.random.default_rng(0)
    for low, high, defect in [(0, 1, 0), (0.25, 1, 0), (0, 0.7, 0), (0.1, 0.9, 0.2)]:
        middle, radius = (low + high) / 2, (high - low) / 2
        p = q = 0.0
        for _ in range(4):
            rows = math.sqrt(1 + defect) + defect * p  # of a v with rows' part of this size and kernel's part q
            v = np.array([rows, q])
            unit = rng.normal(size=(20000, 2))
            unit /= np.linalg.norm(unit, axis=1, keepdims=True)
            images = middle * v + radius * np.linalg.norm(v) * unit
            p, q = (middle * part + radius * np.linalg.norm(v) for part in v)
            assert p * (1 - 1e-4) <= images[:, 0].max() <= p and q * (1 - 1e-4) <= images[:, 1].max() <= q
            assert np.linalg.norm(images, axis=1).max() <= high * np.linalg.norm(v) * (1 + 1e-12)
        held = Sector(Fraction(low), Fraction(high))
        bound = float(lipschitz_of_steps(held, 4, defect=Fraction(defect)))
        assert bound == pytest.approx(high * np.linalg.norm(v), rel=1e-12)
        back = float(lipschitz_of_steps(held, 4, defect=Fraction(defect), rows=True))
        assert back == pytest.approx(math.sqrt(1 + defect) * p, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 6])
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", CONVEX)
def test_no_attack_exceeds_a_certificate(name: str, frame: str, steps: int) -> None:
    block = NOK(FRAMES[frame](), CONVEX[name], steps=steps).eval()
    bound = stablenet.certify(block).lipschitz
    shape = (block.frame.dimension,) if block.frame.axis == -1 else (block.frame.dimension, 2, 2)
    assert largest_gain(block, shape) <= bound * (1 + 1e-9)
    held = sector.of(block.prox)
    assert bound <= float(lipschitz_of_steps(Sector(Fraction(0), held.high), steps)) * (1 + 1e-6)


def largest_gain(block: NOK, shape: tuple[int, ...]) -> float:
    """By ascent over pairs of inputs; `attack` compares inputs and outputs of one size, these differ."""
    generator = torch.Generator().manual_seed(0)
    x, e = (torch.randn(12, *shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    optimizer, best = torch.optim.Adam([x, e], lr=0.05), 0.0
    for _ in range(40):
        ratio = (block(x + e) - block(x)).flatten(1).norm(dim=1) / e.flatten(1).norm(dim=1)
        best = max(best, float(ratio.detach().max()))
        optimizer.zero_grad()
        (-ratio.clamp_min(1e-12).log().sum()).backward()
        optimizer.step()
    return best


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", CONVEX)
def test_a_step_is_averaged_as_certified(name: str, frame: str) -> None:
    block = NOK(FRAMES[frame](), CONVEX[name], steps=1).eval()
    shape = (block.frame.dimension,) if block.frame.axis == -1 else (block.frame.dimension, 2, 2)
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = block.step(x)
    certificate = stablenet.certify(step).certificate
    low = float(sector.of(block.prox).low)
    assert certificate.averagedness == pytest.approx(2 / (3 + low), abs=1e-9)
    wide = (block.frame.size, *shape[1:])
    found = attack(step, wide, averagedness=certificate.averagedness, iterations=40, pairs=8)
    assert found.averagedness <= certificate.averagedness + 1e-9 and found.lipschitz <= certificate.lipschitz + 1e-9


def test_two_thirds_is_sharp() -> None:
    """N = 2, d = 1, kernel along (c, s): ReLU that keeps the first entry alone gives (1 + c)/(2 + c)-averaged, no less."""
    for c in (0.5, 0.9, 0.999):
        s = math.sqrt(1 - c * c)
        frame = frames.Dense(torch.tensor([[-s, c]], dtype=torch.float64))
        step = DescentStep(frame, proximal.Nonnegative(), torch.tensor([[5.0, -5.0]], dtype=torch.float64))
        jacobian = torch.autograd.functional.jacobian(lambda y, f=step: f(y[None])[0], torch.zeros(2, dtype=torch.float64))
        expected = (1 + c) / (2 + c)

        def violation(alpha: float, jacobian: torch.Tensor = jacobian) -> float:
            identity, kappa = torch.eye(2, dtype=torch.float64), (1 - alpha) / alpha
            form = jacobian.T @ jacobian + kappa * (identity - jacobian).T @ (identity - jacobian) - identity
            return float(torch.linalg.eigvalsh(form).max())

        assert violation(expected) <= 1e-9 < violation(expected - 1e-3)
        assert violation(stablenet.certify(step).averagedness) <= 0
    assert expected > 2 / 3 - 2e-4


def test_the_scale_that_makes_every_depth_nonexpansive() -> None:
    def holds(c: Fraction) -> bool:
        return c**2 * (2 - c) ** 2 <= 4 * (1 - c)

    assert holds(Fraction(NONEXPANSIVE_SCALE)) and holds(Fraction(77472957, 10**8)) and not holds(Fraction(77472958, 10**8))
    for c, steps in ((Fraction(77472957, 10**8), 3000), (Fraction(NONEXPANSIVE_SCALE), 300)):
        assert 0.9995 < lipschitz_of_steps(Sector(Fraction(0), c), steps) <= 1
    assert lipschitz_of_steps(Sector(Fraction(0), Fraction(77473, 10**5)), 1000) > 1
    for frame in (frames.Haar(3, 12), frames.DFT(4, 16), frames.Dense(frames.Haar(3, 12).dense().float())):
        for steps in (1, 5, 40):
            block = NOK(frame, proximal.Nonnegative(), steps=steps, scale=NONEXPANSIVE_SCALE)
            assert stablenet.certify(block).certificate.is_nonexpansive


def test_a_frame_known_up_to_rounding_pays_for_it() -> None:
    """|D D^T - I| = e gives D = sqrt(1 + e) at worst: T = 1 has exactly that constant, and no attack on T = 8 finds more."""
    defect = Fraction(1, 100)
    assert lipschitz_of_steps(FIRM, 1, defect=defect) == root_up(1 + defect)
    bound = float(lipschitz_of_steps(FIRM, 8, defect=defect))
    assert bound > float(lipschitz_of_steps(FIRM, 8))
    for sign in (1, -1):
        matrix = math.sqrt(1 + sign * 0.01) * frames.Haar(2, 8).dense()
        x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
        for _ in range(40):
            y = torch.zeros(64, 8, dtype=torch.float64)
            for _ in range(8):
                y = torch.relu(x @ matrix + y - y @ matrix.T @ matrix)
            pair = y.reshape(2, 32, 8).diff(dim=0).norm(dim=-1) / x.reshape(2, 32, 2).diff(dim=0).norm(dim=-1)
            assert float(pair.detach().max()) <= bound
            (gradient,) = torch.autograd.grad(pair.log().sum(), x)
            x = (x + 0.05 * gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-12)).detach().requires_grad_()


@pytest.mark.parametrize("name", NONCONVEX)
def test_what_jumps_is_not_certified(name: str) -> None:
    block = NOK(frames.Haar(3, 12), NONCONVEX[name])
    for module in (block, block.step(torch.zeros(1, 3))):
        with pytest.raises(stablenet.NotCertified, match="discontinuous"):
            stablenet.certify(module)


def test_a_block_altered_after_construction_is_not_certified() -> None:
    class Louder(NOK):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 9 * super().forward(x)

    class Unproved(frames.Haar):
        def forward(self, y: torch.Tensor) -> torch.Tensor:
            return 9 * super().forward(y)

    with pytest.raises(stablenet.NotCertified, match="does not inherit the proof of NOK"):
        stablenet.certify(Louder(frames.Haar(2, 4), proximal.Nonnegative()))
    with pytest.raises(stablenet.NotCertified, match="D D.T = I for .*Unproved.*does not inherit"):
        NOK(Unproved(2, 4), proximal.Nonnegative())
    block = NOK(frames.Haar(2, 4), proximal.Nonnegative())
    block.steps = 0
    with pytest.raises(stablenet.NotCertified, match="0 steps"):
        stablenet.certify(block)
    block = NOK(frames.Haar(2, 4), proximal.Nonnegative())
    block.frame = Unproved(2, 4)
    with pytest.raises(stablenet.NotCertified, match="Unproved"):
        stablenet.certify(block)
    block = NOK(frames.Haar(2, 4), proximal.Nonnegative())
    block.frame.register_forward_hook(lambda module, x, y: 9 * y)
    with pytest.raises(stablenet.NotCertified, match="hooks"):
        stablenet.certify(block)


@pytest.mark.parametrize("rotation", [Householder, Cayley])
@pytest.mark.parametrize("tied", [True, False])
def test_learned_rotations_keep_the_constant(rotation: type, tied: bool) -> None:
    """Trained to enlarge differences, tied or one a step: the certificate stays, and what is found stays below it."""
    generator = torch.Generator().manual_seed(0)
    turn = rotation(4, generator=generator)
    block = NOK(frames.Haar(4, 8), proximal.Nonnegative(), steps=3, rotation=turn, tied=tied)
    bound = stablenet.certify(block).lipschitz
    assert len(list(block.parameters())) == (1 if tied else 3)
    x, e = (torch.randn(16, 4, generator=generator) for _ in range(2))
    optimizer, seen = torch.optim.Adam(block.parameters(), lr=0.05), []
    for _ in range(60):
        ratio = (block(x + e) - block(x)).norm(dim=1) / e.norm(dim=1)
        seen.append(float(ratio.detach().max()))
        optimizer.zero_grad()
        (-ratio.sum()).backward()
        assert all(bool(p.grad.abs().sum() > 0) for p in block.parameters())
        optimizer.step()
    assert stablenet.certify(block).lipschitz == bound == pytest.approx(1.28628, abs=1e-5)
    assert seen[0] < max(seen) <= bound * (1 + 1e-5)
    assert largest_gain(block, (4,)) <= bound * (1 + 1e-9)
    copied = NOK(frames.Haar(4, 8), proximal.Nonnegative(), steps=3, rotation=rotation(4), tied=tied)
    copied.load_state_dict(block.state_dict())
    torch.testing.assert_close(copied(x), block(x), rtol=0, atol=0)


def test_a_certificate_joins_a_network() -> None:
    block = NOK(frames.Haar(3, 12), proximal.Nonnegative(), steps=2)
    chain = torch.nn.Sequential(torch.nn.Linear(5, 3), block, torch.nn.ReLU(), NOK(frames.Haar(12, 12), proximal.Nonnegative()))
    certificates = [stablenet.certify(layer).lipschitz for layer in chain]
    assert stablenet.certify(chain).lipschitz == pytest.approx(math.prod(certificates), rel=1e-12)
    assert parseval.of(block.frame) < 1e-13 and certificates[1] == pytest.approx(math.sqrt(1.25), abs=1e-12)
