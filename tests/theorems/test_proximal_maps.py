"""Proximal maps minimize, lie in their sectors and jump where they are said to (docs/theorems.md, K1)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from stablenet import NotCertified, proximal
from stablenet.sectors import sector
from tests.inventory.proximal import CONVEX, NONCONVEX, PROXIMAL

SIZE = 12


def draw(*shape: int, seed: int = 0, scale: float = 0.5) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rivals(h: torch.Tensor, v: torch.Tensor) -> list[torch.Tensor]:
    """Points near h, some with entries on the boundaries of the domains, and far ones."""
    near = [h + s * torch.randn_like(h) for s in (1e-3, 1e-2, 0.1, 1.0)]
    some = [torch.where(torch.rand_like(h) < share, y, h) for y in near for share in (0.1, 0.5)]
    return [*near, *some, *[y.clamp_min(0) for y in near + some], v, torch.zeros_like(v), v.clamp_min(0)]


@pytest.mark.parametrize("name", PROXIMAL)
def test_nothing_lies_below_the_proximal_point(name: str) -> None:
    prox, v = PROXIMAL[name], draw(400, SIZE)
    torch.manual_seed(0)
    h = prox.prox(v)
    lowest = (h - v).square().sum(-1) / 2 + prox.value(h)
    assert bool(torch.isfinite(lowest).all())
    for y in [*rivals(h, v), *(h * (torch.arange(SIZE) != k) for k in range(SIZE))]:
        value = (y - v).square().sum(-1) / 2 + prox.value(y)
        assert bool((lowest <= value + 1e-12).all())
        if prox.convex and not isinstance(prox, proximal.Scaled):  # strongly convex with modulus one
            assert bool((lowest + (y - h).square().sum(-1) / 2 <= value + 1e-12).all())


@pytest.mark.parametrize("name", [name for name in PROXIMAL if "group" not in name and name != "maximum"])
def test_entry_by_entry_it_is_the_minimum_over_a_grid(name: str) -> None:
    prox, v = PROXIMAL[name], torch.linspace(-1.2, 1.2, 97, dtype=torch.float64)[:, None]
    grid = torch.linspace(-1.5, 1.5, 6001, dtype=torch.float64)
    grid[3000] = 0.0
    values = (grid - v).square() / 2 + prox.value(grid[:, None])
    h = prox.prox(v)
    exact = (h - v).square().sum(-1) / 2 + prox.value(h)
    assert bool((exact <= values.amin(1) + 1e-12).all() and (values.amin(1) <= exact + 1e-3).all())


@pytest.mark.parametrize("name", PROXIMAL)
def test_the_axis_is_where_features_lie(name: str) -> None:
    prox, v = PROXIMAL[name], draw(2, SIZE, 3, 4)
    last = v.movedim(1, -1)
    torch.testing.assert_close(prox.prox(v, 1), prox.prox(last).movedim(-1, 1), rtol=0, atol=0)
    torch.testing.assert_close(prox.value(v, 1), prox.value(last), rtol=1e-12, atol=0)
    assert prox.value(v, 1).shape == (2, 3, 4)
    zero = torch.zeros(SIZE, dtype=torch.float64)
    assert float(prox.value(zero)) == 0 and float(prox.prox(zero).norm()) == 0


@pytest.mark.parametrize("name", CONVEX)
def test_differences_lie_in_the_sector(name: str) -> None:
    """Gradient ascent on the excess over the sector, from random pairs near and far."""
    prox = CONVEX[name]
    held = sector.of(prox)
    low, high = float(held.low), float(held.high)
    distance = torch.logspace(-4, 1, 60, dtype=torch.float64)[:, None]
    v, d = draw(60, SIZE, seed=1), draw(60, SIZE, seed=2)
    worst = -math.inf
    for _ in range(60):
        v, d = v.detach().requires_grad_(), (distance * nn.functional.normalize(d.detach(), dim=1)).requires_grad_()
        moved = prox.prox(v + d) - prox.prox(v)
        excess = ((low * d - moved) * (high * d - moved)).sum(1) / distance[:, 0] ** 2
        worst = max(worst, float(excess.detach().max()))
        step, turn = torch.autograd.grad(excess.sum(), (v, d))
        v = v + 0.1 * nn.functional.normalize(step, dim=1)
        d = d + 0.3 * distance * nn.functional.normalize(turn, dim=1)
    assert worst <= 1e-10
    assert low == (0.25 if name == "leaky" else 0) and high == getattr(prox, "factor", 1)


@pytest.mark.parametrize("name", ["nonnegative", "leaky", "scaled"])
def test_both_ends_of_the_sector_are_met(name: str) -> None:
    held, slope = sector.of(CONVEX[name]), torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    assert CONVEX[name].prox(slope).flatten().tolist() == [-float(held.low), float(held.high)]


@pytest.mark.parametrize("prox", [p for p in CONVEX.values() if isinstance(p, proximal.Homogeneous)], ids=repr)
def test_polar_bounds_the_inner_product(prox: proximal.Homogeneous) -> None:
    """<w, y> <= polar(w) phi(y), attained; phi(t y) = t phi(y)."""
    w, y = draw(3000, 8, seed=3), draw(3000, 8, seed=4).abs()
    y[::2] *= w[::2].sign() if not isinstance(prox, proximal.ShiftedNonnegative) else (w[::2] > 0.4)
    polar, value = prox.polar(w), prox.value(y)
    assert bool(((w * y).sum(-1) <= polar * value + 1e-12).all())
    torch.testing.assert_close(prox.value(3 * y), 3 * value)
    group = getattr(prox, "group", 1)
    parts = w.unflatten(-1, (-1, group))
    best = parts * (parts.norm(dim=-1, keepdim=True) >= parts.norm(dim=-1).amax(-1)[:, None, None])
    if isinstance(prox, proximal.ShiftedNonnegative):
        best = (w * ((w > 0) & (w >= w.amax(-1, keepdim=True)))).unflatten(-1, (-1, group))
    best = best.flatten(1)
    torch.testing.assert_close((w * best).sum(-1), polar * prox.value(best), rtol=1e-10, atol=1e-12)


def test_homogeneous_are_those_with_a_weight() -> None:
    found = {name for name, prox in PROXIMAL.items() if isinstance(prox, proximal.Homogeneous)}
    assert found == {"shifted", "soft", "group-soft"}


@pytest.mark.parametrize("name", NONCONVEX)
def test_a_jump_has_no_sector(name: str) -> None:
    prox = NONCONVEX[name]
    at = torch.zeros(1, SIZE, dtype=torch.float64)
    at[0, :2] = 0.4 if name == "hard" else math.sqrt(0.1) if name == "scaled-hard" else 1.0
    near = torch.zeros_like(at)
    near[0, 0], near[0, 1] = 1e-9, -1e-9
    moved = prox.prox(at + near) - prox.prox(at - near)
    assert float(moved.norm() / (2 * near.norm())) > 1e6
    with pytest.raises(NotCertified, match="discontinuous.*take SoftThreshold"):
        sector.of(prox)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: proximal.ShiftedNonnegative(0.0), r"ShiftedNonnegative\(weight=0.0\).*take Nonnegative"),
        (lambda: proximal.SoftThreshold(-1.0), r"weight=-1.0.*weight > 0"),
        (lambda: proximal.SoftThreshold(math.inf), "weight=inf"),
        (lambda: proximal.LeakyNonnegative(0.0), "take Nonnegative"),
        (lambda: proximal.LeakyNonnegative(1.5), "0 < slope <= 1"),
        (lambda: proximal.LeakyNonnegative(math.nan), "slope=nan"),
        (lambda: proximal.GroupSoftThreshold(0.1, 0), "an integer group >= 1"),
        (lambda: proximal.GroupSoftThreshold(0.0, 2), "weight > 0"),
        (lambda: proximal.HardThreshold(0.0), "weight > 0"),
        (lambda: proximal.GroupMaximum(1), "an integer group >= 2"),
        (lambda: proximal.GroupMaximum(2.0), "an integer group >= 2"),
        (lambda: proximal.Scaled(proximal.Nonnegative(), 1.0), "0 < factor < 1"),
        (lambda: proximal.GroupMaximum(5).prox(torch.zeros(12)), "5 divides, got 12"),
        (lambda: proximal.GroupSoftThreshold(0.1, 5).value(torch.zeros(12)), "5 divides, got 12"),
    ],
)
def test_parameters_out_of_range_are_refused(make, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


def test_a_sector_is_that_of_the_exact_class_as_constructed() -> None:
    class Steeper(proximal.LeakyNonnegative):
        def prox(self, v: torch.Tensor, axis: int = -1) -> torch.Tensor:
            return 3 * super().prox(v, axis)

    with pytest.raises(NotCertified, match="does not inherit the proof of LeakyNonnegative"):
        sector.of(Steeper(0.5))
    for name, value in (("slope", 2.0), ("prox", lambda v, axis: 9 * v)):
        changed = proximal.LeakyNonnegative(0.5)
        object.__setattr__(changed, name, value)
        with pytest.raises(NotCertified):
            sector.of(changed)
    hidden = proximal.Scaled(Steeper(0.5), 0.5)
    with pytest.raises(NotCertified, match="does not inherit"):
        sector.of(hidden)


def test_gradients_are_finite_where_groups_vanish() -> None:
    v = torch.zeros(2, 6, dtype=torch.float32, requires_grad=True)
    proximal.GroupSoftThreshold(0.3, 3).prox(v).sum().backward()
    assert bool(torch.isfinite(v.grad).all())
