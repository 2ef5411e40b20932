"""Rotations are orthogonal whatever is learned, and Procrustes' is the best: against single reflections, random rotations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import stablenet
from stablenet import spectral
from stablenet.linear import frames, parseval
from stablenet.linear.rotation import Cayley, Fixed, Householder, alternating, procrustes, turned
from tests.inventory.frames import ROTATIONS

EXACT = [name for name in ROTATIONS if not name.startswith("fixed")]


def orthogonal(d: int) -> Tensor:
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64)).Q


def off(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix.detach().double() @ matrix.detach().double().T - torch.eye(len(matrix)), 2))


def as_computed(rotation: nn.Module, dtype: torch.dtype) -> Tensor:
    """The matrix of what `forward` does, in this precision, along whichever axis."""
    d = rotation.dimension
    basis = torch.eye(d, dtype=dtype)
    return rotation(basis[:, :, None, None])[:, :, 0, 0].T if rotation.axis == 1 else rotation(basis).T


@pytest.mark.parametrize("name", ROTATIONS)
def test_rotations_are_orthogonal_and_the_adjoint_undoes_them(name):
    make, shape = ROTATIONS[name]
    rotation = make()
    assert off(as_computed(rotation, torch.float64)) < 1e-14 and off(as_computed(rotation, torch.float32)) < 1e-6
    x, z = torch.randn(2, 3, *shape, dtype=torch.float64)
    torch.testing.assert_close(rotation.adjoint(rotation(x)), x, rtol=0, atol=1e-14)
    torch.testing.assert_close((rotation(x) * z).sum(), (x * rotation.adjoint(z)).sum(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rotation(x), turned(rotation.dense(), x, rotation.axis), rtol=0, atol=1e-14)


def test_householder_is_the_product_of_its_reflections():
    for d, k in ((5, 5), (6, 2), (3, 7), (4, 1)):
        rotation = Householder(d, k).double()
        product = torch.eye(d, dtype=torch.float64)
        for v in rotation.vectors.detach():
            product = product @ (torch.eye(d) - 2 * torch.outer(v, v) / (v @ v))
        torch.testing.assert_close(rotation.dense(), product, rtol=0, atol=1e-13)


def test_reflections_reach_a_rotation_that_cayley_cannot():
    """diag(-1, -1, 1) by two reflections; Cayley's map keeps |R + I| invertible, whatever its entries."""
    rotation = Householder(3, 2)
    with torch.no_grad():
        rotation.vectors.copy_(torch.eye(3)[:2])
    torch.testing.assert_close(rotation.dense(), torch.diag(torch.tensor([-1.0, -1, 1])).double(), rtol=0, atol=0)
    cayley = Cayley(3).double()
    for scale in (0.1, 1, 100):
        with torch.no_grad():
            cayley.entries.normal_(std=scale)
        assert float(torch.linalg.det(cayley.dense().detach())) == pytest.approx(1)
        assert float(torch.linalg.svdvals(cayley.dense() + torch.eye(3)).min()) > 0


@pytest.mark.parametrize("name", EXACT)
def test_gradients(name):
    make, shape = ROTATIONS[name]
    rotation = make().double()
    (weight,) = rotation.parameters()
    x = torch.randn(2, *shape, dtype=torch.float64)

    def of(values: Tensor) -> Tensor:
        return torch.func.functional_call(rotation, {next(iter(rotation.state_dict())): values}, x)

    if weight.numel():
        assert torch.autograd.gradcheck(of, (weight.detach().requires_grad_(),))


@pytest.mark.parametrize("steps", [200, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [Householder, Cayley])
def test_training_leaves_them_orthogonal(make, steps):
    """In float32, as they run, with a step size that throws the weights about: 1e-6 at the end, and the certificate is 1."""
    rotation, aim = make(8), orthogonal(8).float()
    (weight,) = rotation.parameters()
    before, generator = weight.detach().clone(), torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(8, 8, generator=generator)
        (gradient,) = torch.autograd.grad((rotation(x) - x @ aim.T).square().sum(), weight)
        with torch.no_grad():
            weight -= 0.05 * gradient
    assert float((weight - before).abs().max()) > 0.5
    assert off(as_computed(rotation, torch.float32).detach()) < 1e-6
    assert stablenet.certify(rotation).lipschitz == 1 and parseval.of(rotation) == 0


@pytest.mark.parametrize("name", ROTATIONS)
def test_the_certificate_holds(name):
    rotation = ROTATIONS[name][0]()
    bound = stablenet.certify(rotation).lipschitz
    assert bound == spectral.upper_bound(rotation) and 1 <= bound <= 1 + 1e-12
    assert (bound == 1) == (name in EXACT)
    assert off(rotation.dense().detach()) - 1e-14 <= parseval.of(rotation) <= 1e-12 * (name not in EXACT)


def test_a_loaded_matrix_is_measured_as_it_is():
    rotation = Fixed.random(3)
    rotation.load_state_dict({"matrix": 1.1 * rotation.matrix})
    assert parseval.of(rotation) == pytest.approx(0.21) and stablenet.certify(rotation).lipschitz == pytest.approx(1.1)
    single = Fixed(orthogonal(16).float())
    assert single.matrix.dtype == torch.float32 and 0 < parseval.of(single) < 1e-5
    assert off(single.matrix) <= parseval.of(single) <= off(single.matrix) + 1e-12


@pytest.mark.parametrize(("make", "parameter"), [(lambda: Householder(3), "vectors"), (lambda: Cayley(3), "entries")])
def test_altered_weights_are_refused(make, parameter):
    rotation = make()
    setattr(rotation, parameter, nn.Parameter(torch.ones(5, 5)))
    with pytest.raises(stablenet.NotCertified, match=r"shape \(5, 5\)"):
        stablenet.certify(rotation)
    rotation = make()
    with torch.no_grad():
        getattr(rotation, parameter)[0] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        spectral.upper_bound(rotation)


def test_vectors_without_a_direction_are_refused():
    rotation = Householder(3)
    with torch.no_grad():
        rotation.vectors[1] = 0
    with pytest.raises(ValueError, match=r"length 0 to .*1e-10.*rescale"):
        stablenet.certify(rotation)


@pytest.mark.parametrize(("samples", "d"), [(50, 4), (3, 6), (1, 3)])
def test_procrustes_beats_random_rotations_and_its_neighbors(samples, d):
    x, features = torch.randn(2, samples, d, dtype=torch.float64)
    best = procrustes(features, x)
    assert off(best) < 1e-13

    def error(rotation: Tensor) -> float:
        return float((x @ rotation.T - features).square().sum())

    nuclear = float(torch.linalg.svdvals(features.T @ x).sum())
    assert error(best) == pytest.approx(float(x.square().sum() + features.square().sum()) - 2 * nuclear)
    others = [orthogonal(d) for _ in range(200)]
    others += [torch.matrix_exp(1e-3 * (a - a.T)) @ best for a in torch.randn(50, d, d, dtype=torch.float64)]
    assert min(error(other) for other in others) >= error(best) - 1e-12
    true = orthogonal(d)
    assert error(procrustes(x @ true.T, x)) >= 0 and float((x @ procrustes(x @ true.T, x).T - x @ true.T).abs().max()) < 1e-12


def test_procrustes_of_images_is_that_of_all_their_pixels():
    x, features = torch.randn(2, 2, 3, 5, 4)
    pixels = [part.permute(0, 2, 3, 1).reshape(-1, 3) for part in (features, x)]
    torch.testing.assert_close(procrustes(features, x, axis=1), procrustes(*pixels))


@pytest.mark.parametrize(
    ("frame", "shape"),
    [(frames.DFT(4, 12), (4,)), (frames.Haar(3, 8), (3,)), (frames.Cosines(2, 2), (2, 5, 4))],
    ids=["dft", "haar", "cosines"],
)
def test_alternating_never_increases_the_objective(frame, shape):
    """Q = |R x - D y|^2/2 + phi(y), phi = 0.1 |y|_1 over y >= 0, after each step in y and after each in R."""
    x = torch.randn(30, *shape, dtype=torch.float64)
    seen: list[float] = []

    def objective(u: Tensor, y: Tensor) -> float:
        return float((u - frame(y)).square().sum() / 2 + 0.1 * y.sum())

    def step(u: Tensor, y: Tensor) -> Tensor:
        seen.append(objective(u, y))
        return (y + frame.adjoint(u - frame(y)) - 0.1).relu()

    for rotation, y in itertools.islice(alternating(frame, step, x), 40):
        seen.append(objective(turned(rotation, x, frame.axis), y))
        assert off(rotation) < 1e-12
    assert all(later <= earlier + 1e-11 for earlier, later in itertools.pairwise(seen))
    assert seen[-1] < 0.7 * seen[0]


def test_a_fitted_rotation_is_taken_in_place():
    rotation, better = Fixed.random(4).float(), orthogonal(4)
    rotation.assign(better)
    torch.testing.assert_close(rotation.matrix, better.float(), rtol=0, atol=0)
    torch.testing.assert_close(rotation.state_dict()["matrix"], better.float(), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"shape \(4, 4\), got \(3, 3\)"):
        rotation.assign(orthogonal(3))
    with pytest.raises(ValueError, match=r"\|D D\^T - I\| = 3"):
        rotation.assign(2 * better)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Householder(0), "dimension must be a positive"),
        (lambda: Householder(3, 0), "reflections must be a positive"),
        (lambda: Cayley(-1), "dimension must be a positive"),
        (lambda: Fixed(torch.eye(2, 3)), r"square matrix.*\(2, 3\)"),
        (lambda: Fixed(1.5 * torch.eye(3)), r"\|D D\^T - I\| = 1.25"),
        (lambda: Fixed(torch.full((2, 2), math.inf)), "infinity"),
        (lambda: Fixed(torch.eye(2, dtype=torch.complex128)), "complex128"),
        (lambda: Fixed(torch.eye(2, dtype=torch.int64)), "int64"),
        (lambda: Householder(3)(torch.zeros(2, 4)), r"3 features along axis -1, got shape \(2, 4\)"),
        (lambda: Cayley(3, axis=1)(torch.zeros(2, 4, 3, 3)), r"3 features along axis 1"),
        (lambda: Cayley(3).adjoint(torch.zeros(2, 3, dtype=torch.complex64)), "complex64"),
        (lambda: procrustes(torch.zeros(3, 2), torch.zeros(3, 4)), r"one shape, got \(3, 2\) and \(3, 4\)"),
        (lambda: procrustes(torch.full((3, 2), math.nan), torch.zeros(3, 2)), "NaN"),
        (lambda: procrustes(*torch.zeros(2, 3, 2, dtype=torch.complex64)), "complex64"),
        (lambda: procrustes(*torch.zeros(2, 3), axis=1), "axis 1"),
    ],
)
def test_bad_rotations_are_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()
