"""Every step of a block descends on its objective by what is proved, at the proved rate, to cvxpy's optimum (K2)."""

from __future__ import annotations

import itertools

import cvxpy
import numpy as np
import pytest
import torch

from stablenet import proximal
from stablenet.blocks import NOK
from stablenet.linear import frames
from stablenet.linear.rotation import Fixed, alternating
from tests.inventory.proximal import CONVEX, PROXIMAL

FRAMES = {
    "haar": lambda: frames.Haar(5, 12),
    "dft": lambda: frames.DFT(4, 12),
    "square": lambda: frames.Haar(8, 8),
    "one-row": lambda: frames.Haar(1, 4),
    "hadamard": lambda: frames.Hadamard(9, 64),
    "channels": lambda: frames.Pointwise(frames.DFT(6, 24)),
    "cosines": lambda: frames.Cosines(1, 2),
}


def inputs(block: NOK, count: int = 25, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    shape = (block.frame.dimension,) if block.frame.axis == -1 else (block.frame.dimension, 3, 2)
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(-1, 1, count, dtype=dtype).reshape(-1, *[1] * len(shape))
    return sizes * torch.randn(count, *shape, generator=generator, dtype=dtype)


def energies(x: torch.Tensor) -> torch.Tensor:
    return x.square().flatten(1).sum(1) / 2


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", PROXIMAL)
def test_each_step_descends_by_what_is_proved(name: str, frame: str) -> None:
    """Q(y+) <= Q(y) - |P(y+ - y)|^2/2, for convex phi a further |y+ - y|^2/2."""
    block = NOK(FRAMES[frame](), PROXIMAL[name], steps=60)
    x = inputs(block)
    q, points = block.objectives(x), [0 * block(x), *block.iterates(x)]
    for k in range(block.steps):
        moved = points[k + 1] - points[k]
        promised = energies(block.frame.complement(moved)) + (energies(moved) if block.prox.convex else 0)
        assert bool((q[k + 1] <= q[k] - promised + 1e-14 * (1 + q[0])).all())
    torch.testing.assert_close(q[0], energies(x), rtol=1e-12, atol=0)
    assert float((q[-1] / q[0]).min()) < 0.9


@pytest.mark.parametrize("name", CONVEX)
def test_the_constants_of_descent_are_not_slack(name: str) -> None:
    """Where phi bends as little as it may (linear; for c h as |y|^2 (1/c - 1)/2), no more than the promise is kept."""
    prox = CONVEX[name]
    block = NOK(FRAMES["haar"](), prox, steps=1)
    x = inputs(block, 400, seed=2)
    y = inputs(NOK(frames.Haar(12, 12), prox), 400, seed=1).abs() + 20
    moved = block.step(x)(y) - y
    strong = 1 / prox.factor - 1 if isinstance(prox, proximal.Scaled) else 0.0
    promised = energies(block.frame.complement(moved)) + (1 + strong) * energies(moved)
    ratio = (block.objective(x, y) - block.objective(x, y + moved)) / promised
    assert 1 - 1e-9 <= float(ratio.min()) < 1.05


@pytest.mark.parametrize("name", CONVEX)
def test_the_rate_and_the_fixed_point(name: str) -> None:
    """Q(y_T) - Q* <= |y*|^2/(2 T) with cvxpy's y*, and 20000 steps reach Q* and D y* to 1e-6."""
    frame, prox, count = frames.Haar(5, 12), CONVEX[name], 4
    block = NOK(frame, prox, steps=2000)
    x = inputs(block, count, seed=3)
    optimum = torch.stack([solved(frame.dense(), prox, u) for u in x])
    lowest = block.objective(x, optimum.clamp_min(0) if bool((optimum > -1e-7).all()) else optimum)
    gap = block.objectives(x)[1:] - lowest
    steps = torch.arange(1, block.steps + 1, dtype=x.dtype)[:, None]
    assert bool((gap <= energies(optimum) / steps + 1e-6 * (1 + lowest)).all())
    y, step = block(x), block.step(x)
    for _ in range(18000):
        y = step(y)
    torch.testing.assert_close(block.objective(x, y), lowest, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(frame(y), frame(optimum), rtol=1e-6, atol=3e-6)


def solved(matrix: torch.Tensor, prox: proximal.Proximal, u: torch.Tensor) -> torch.Tensor:
    """cvxpy's minimizer of |u - D y|^2/2 + phi(y)."""
    y = cvxpy.Variable(matrix.shape[1])
    cost, constraints = written_out(prox, y)
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(u.numpy() - matrix.numpy() @ y) / 2 + cost), constraints)
    problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return torch.from_numpy(np.asarray(y.value))


def written_out(prox: proximal.Proximal, y: cvxpy.Expression) -> tuple[cvxpy.Expression, list[cvxpy.Constraint]]:
    if isinstance(prox, proximal.Scaled):
        cost, constraints = written_out(prox.inner, y / prox.factor)
        return prox.factor * cost + (1 / prox.factor - 1) / 2 * cvxpy.sum_squares(y), constraints
    if isinstance(prox, proximal.Nonnegative):
        return cvxpy.Constant(0), [y >= 0]
    if isinstance(prox, proximal.ShiftedNonnegative):
        return prox.weight * cvxpy.sum(y), [y >= 0]
    if isinstance(prox, proximal.LeakyNonnegative):
        return (1 / prox.slope - 1) / 2 * cvxpy.sum_squares(cvxpy.neg(y)), []
    if isinstance(prox, proximal.SoftThreshold):
        return prox.weight * cvxpy.norm1(y), []
    groups = range(0, y.shape[0], prox.group)
    return prox.weight * cvxpy.sum([cvxpy.norm2(y[g : g + prox.group]) for g in groups]), []


@pytest.mark.parametrize("frame", ["dft", "haar", "channels"])
@pytest.mark.parametrize("name", PROXIMAL)
def test_alternating_with_a_rotation_never_increases_the_objective(name: str, frame: str) -> None:
    """Procrustes against the steps of the block, for convex and other phi: the block itself tells the objective."""
    block = NOK(FRAMES[frame](), PROXIMAL[name], rotation=Fixed.random(FRAMES[frame]().dimension, axis=FRAMES[frame]().axis))
    x = inputs(block, 30)
    turns, last = itertools.islice(alternating(block.frame, block.descend, x, start=block.rotations[0].dense()), 25), None
    for rotation, y in turns:
        before = None if last is None else block.objective(x, last)
        if before is not None:
            assert bool((block.objective(x, y) <= before + 1e-12 * (1 + before)).all())  # the step in y, each by itself
        total = float(block.objective(x, y).sum())
        block.rotations[0].assign(rotation)
        assert float(block.objective(x, y).sum()) <= total + 1e-11 * (1 + total)  # the step in R, all together
        last = y


def test_single_precision_is_double_precision_up_to_rounding() -> None:
    for name, prox in CONVEX.items():
        block = NOK(frames.DFT(16, 64), prox, steps=20)
        x = inputs(block)
        single = block(x.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), block(x), rtol=1e-4, atol=1e-5, msg=name)


def test_a_block_is_its_formula() -> None:
    frame, prox = frames.Haar(4, 9), proximal.SoftThreshold(0.1)
    block = NOK(frame, prox, steps=3)
    d, x, y = frame.dense(), inputs(block), torch.zeros(25, 9, dtype=torch.float64)
    for _ in range(3):
        v = x @ d + y @ (torch.eye(9, dtype=torch.float64) - d.T @ d)
        y = v.sign() * (v.abs() - 0.1).clamp_min(0)
    torch.testing.assert_close(block(x), y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(block.kernel(x, x[:3]), y @ y[:3].T, rtol=1e-12, atol=1e-12)
    shape = (2, 5, 4)
    torch.testing.assert_close(block(x[:10].reshape(*shape)), y[:10].reshape(2, 5, 9), rtol=1e-12, atol=1e-12)
    image = NOK(frames.Pointwise(frames.Haar(4, 9)), prox, steps=3)
    pixels = image(x[:6].T.reshape(1, 4, 2, 3))
    torch.testing.assert_close(pixels.reshape(9, 6).T, y[:6], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: NOK(frames.Haar(2, 6), proximal.Nonnegative(), steps=0), "steps must be an integer of at least 1, got 0"),
        (lambda: NOK(frames.Haar(2, 6), proximal.Nonnegative(), steps=2.0), "steps must be an integer"),
        (lambda: NOK(frames.Haar(2, 6), proximal.Nonnegative(), scale=1.2), r"scale must lie in \(0, 1\], got 1.2"),
        (lambda: NOK(frames.Haar(2, 6), torch.nn.ReLU()), "prox must be a proximal map of stablenet.proximal"),
        (lambda: NOK(frames.Haar(2, 7), proximal.GroupMaximum(2)), "2 divides, got 7"),
        (lambda: NOK(frames.Haar(2, 6), proximal.Nonnegative(), tied=False), "needs a rotation"),
        (lambda: NOK(torch.eye(3), proximal.Nonnegative()), "modules of stablenet.linear, got Tensor"),
        (lambda: NOK(frames.Dense(1.1 * torch.eye(3, 6)), proximal.Nonnegative()), r"D D\^T - I\| = 0.21"),
        (lambda: NOK(torch.nn.Linear(3, 6), proximal.Nonnegative()), "no proof of D D.T = I for .*Linear"),
    ],
)
def test_what_is_no_block_is_refused(make, told: str) -> None:
    with pytest.raises((ValueError, TypeError), match=told):
        make()


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (torch.zeros(3, 5), r"x must have shape \(..., 4\), got \(3, 5\)"),
        (torch.zeros(()), r"shape \(..., 4\)"),
        (torch.zeros(3, 4, dtype=torch.complex64), "real and of floating point, got torch.complex64"),
        (torch.zeros(3, 4, dtype=torch.int64), "torch.int64"),
        (torch.full((3, 4), torch.nan), "NaN or infinity"),
    ],
)
def test_what_is_no_signal_is_refused(x: torch.Tensor, told: str) -> None:
    block = NOK(frames.Haar(4, 9), proximal.Nonnegative()).eval()
    for ask in (block, block.objectives, block.step, lambda x: block.kernel(x, x)):
        with pytest.raises(ValueError, match=told):
            ask(x)
    image = NOK(frames.Pointwise(frames.Haar(4, 9)), proximal.Nonnegative())
    with pytest.raises(ValueError, match=r"\(batch, 4, height, width\), got \(2, 4\)"):
        image(torch.zeros(2, 4))
