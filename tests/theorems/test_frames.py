"""D D^T = I, fast products equal those with the dense matrix, and the adjoint is exact: for every frame, in every use."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import stablenet
from stablenet import spectral
from stablenet.linear import frames, parseval
from stablenet.linear.frames.columns import largest_cosine
from tests.inventory.frames import FRAMES

EXACT = [name for name in FRAMES if parseval.of(FRAMES[name][0]()) == 0]


def dense(frame: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """The matrix of a frame: of its features, or of all features of an image where pixels meet."""
    return frame.dense(*shape[1:]) if isinstance(frame, frames.Cosines) else frame.dense()


def along(frame: nn.Module, matrix: Tensor, y: Tensor) -> Tensor:
    """The oracle: a matrix times the features of y, wherever they lie."""
    if isinstance(frame, frames.Cosines):
        return (y.flatten(1) @ matrix.T).unflatten(1, (-1, *y.shape[2:]))
    return torch.tensordot(y, matrix, ([frame.axis], [1])).movedim(-1, frame.axis)


@pytest.mark.parametrize("name", FRAMES)
def test_rows_are_orthonormal(name):
    make, shape = FRAMES[name]
    matrix = dense(make(), shape)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix), dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-13), (torch.float32, 3e-6), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("name", FRAMES)
def test_products_are_those_of_the_matrix(name, dtype, error):
    make, shape = FRAMES[name]
    frame = make()
    matrix = dense(frame, shape)
    y = torch.randn(3, *shape, dtype=torch.float64).to(dtype)
    u = along(frame, matrix, torch.randn(3, *shape, dtype=torch.float64)).to(dtype)
    pairs = [(frame(y), along(frame, matrix, y.double())), (frame.adjoint(u), along(frame, matrix.T, u.double()))]
    pairs += [(frame.complement(y), along(frame, torch.eye(matrix.shape[1]).double() - matrix.T @ matrix, y.double()))]
    for found, expected in pairs:
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=error)


@pytest.mark.parametrize("name", FRAMES)
def test_the_adjoint_is_exact(name):
    make, shape = FRAMES[name]
    frame, y = make(), torch.randn(4, *shape, dtype=torch.float64)
    u = torch.randn_like(frame(y))
    torch.testing.assert_close((frame(y) * u).sum(), (y * frame.adjoint(u)).sum(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(frame(frame.adjoint(u)), u, rtol=0, atol=1e-13)
    torch.testing.assert_close(frame(frame.complement(y)), torch.zeros_like(u), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", FRAMES)
def test_derivatives_of_any_order_and_mode(name):
    make, shape = FRAMES[name]
    frame, y = make(), torch.randn(2, *shape, dtype=torch.float64, requires_grad=True)
    u = torch.randn_like(frame(y).detach(), requires_grad=True)
    for function, point in ((frame, y), (frame.adjoint, u), (frame.complement, y)):
        assert torch.autograd.gradcheck(function, (point,), fast_mode=True, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, (point,), fast_mode=True)
        each = torch.func.vmap(torch.func.jacrev(lambda z, function=function: function(z[None])[0].sum()))(point.detach())
        (together,) = torch.autograd.grad(function(point).sum(), point)
        torch.testing.assert_close(each, together, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", FRAMES)
def test_the_certificate_holds_and_is_sharp(name):
    make, shape = FRAMES[name]
    frame = make()
    norm = float(torch.linalg.matrix_norm(dense(frame, shape), 2))
    bound = stablenet.certify(frame).lipschitz
    assert bound == spectral.upper_bound(frame)
    assert norm - 1e-14 <= bound <= 1 + 1e-11
    assert bound == 1 or name not in EXACT
    assert not frame.state_dict() and not [*frame.parameters()]


@pytest.mark.parametrize("name", [name for name in FRAMES if name not in EXACT])
def test_the_defect_of_a_matrix_is_above_the_truth(name):
    """The product summed exactly, by math.fsum, is nearer to I than the bound says."""
    frame = FRAMES[name][0]()
    rows = [[float(x) for x in row] for row in frame.dense()]
    exact = [
        [math.fsum([a * b for a, b in zip(r, s, strict=True)]) - (i == j) for j, s in enumerate(rows)]
        for i, r in enumerate(rows)
    ]
    truth = float(torch.linalg.matrix_norm(torch.tensor(exact, dtype=torch.float64), 2))
    assert truth <= parseval.of(frame) <= truth + 1e-12


@pytest.mark.parametrize("name", FRAMES)
def test_coherence_is_the_largest_cosine(name):
    make, shape = FRAMES[name]
    frame = make()
    matrix = dense(frame, (shape[0], *[2 * frame.kernel_size] * 2) if isinstance(frame, frames.Cosines) else shape)
    gram = nn.functional.normalize(matrix, dim=0).T @ nn.functional.normalize(matrix, dim=0)
    assert frame.coherence == pytest.approx(float((gram - gram.diagonal().diag()).abs().max()), abs=1e-14)


@pytest.mark.parametrize(("channels", "k"), [(1, 2), (3, 3), (2, 4), (1, 5)])
def test_features_of_cosines_are_circular_correlations(channels, k):
    """By the formula: sum_rs cos_i(r) cos_j(s) u(p + r - (k-1)//2, q + s - (k-1)//2)/k, pixel by pixel."""
    frame, u = frames.Cosines(channels, k), torch.randn(2, channels, 7, 6, dtype=torch.float64)
    waves, before = frames.DCT(k, k).dense(), (k - 1) // 2
    expected = torch.zeros(2, channels, k, k, 7, 6, dtype=torch.float64)
    for r in range(k):
        for s in range(k):
            seen = u.roll((before - r, before - s), (2, 3))
            expected += waves[:, r, None, None, None] * waves[:, s, None, None] * seen[:, :, None, None] / k
    torch.testing.assert_close(frame.adjoint(u), expected.reshape(2, -1, 7, 6), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("m", "n"), [(5, 31), (6, 31), (10, 31), (7, 43), (16, 257), (32, 257), (28, 113)])
def test_a_subgroup_is_as_incoherent_as_gauss_sums_say(m, n):
    frame = frames.DFT(2 * m, 2 * n, "subgroup")
    chosen = set(frame.frequencies)
    assert len(chosen) == m and {a * b % n for a in chosen for b in chosen} == chosen
    e = (n - 1) // m
    assert frame.coherence <= (1 + (e - 1) * math.sqrt(n)) / (n - 1) + 1e-12


@pytest.mark.parametrize("make", [lambda: frames.DFT(32, 128), lambda: frames.Hadamard(32, 128)])
def test_rows_chosen_are_less_coherent_than_neighbors_and_the_same_each_time(make):
    assert make().coherence <= 0.5 < frames.DFT(32, 128, range(16)).coherence
    torch.testing.assert_close(make().dense(), make().dense(), rtol=0, atol=0)


def test_columns_in_blocks_have_the_same_coherence(monkeypatch):
    matrix = torch.randn(5, 23, dtype=torch.float64)
    matrix[:, 7] = 0
    expected = largest_cosine(matrix)
    monkeypatch.setattr("stablenet.linear.frames.columns.BLOCK", 4)
    assert largest_cosine(matrix) == pytest.approx(expected, abs=1e-15) and 0.5 < expected < 1


@pytest.mark.parametrize("name", FRAMES)
def test_any_place_in_memory_will_do(name):
    """Numbers that begin at an odd place, lie backwards in memory or repeat, and single vectors."""
    make, shape = FRAMES[name]
    frame, count = make(), 3 * math.prod(shape)
    late = torch.randn(count + 1, dtype=torch.float64)[1:].view(3, *shape)
    turned = torch.randn(*reversed(shape), 3, dtype=torch.float64).permute(*reversed(range(len(shape) + 1)))
    for y in (late, turned, late[:1].expand(3, *shape)):
        for function in (frame, frame.complement, lambda y: frame.adjoint(frame(y))):
            torch.testing.assert_close(
                function(y), function(y.clone(memory_format=torch.contiguous_format)), rtol=0, atol=1e-13
            )
    if frame.axis == -1:
        torch.testing.assert_close(frame(late[0]), frame(late)[0], rtol=0, atol=1e-13)
        torch.testing.assert_close(frame(late[:, None]), frame(late)[:, None], rtol=0, atol=1e-13)


def test_a_frame_made_in_inference_mode_trains_afterwards():
    frame = frames.DCT(3, 8)
    with torch.inference_mode():
        frame(torch.randn(1, 8))
    y = torch.randn(1, 8, requires_grad=True)
    frame(y).sum().backward()
    assert y.grad is not None


def skewed() -> Tensor:
    return torch.eye(2, 4) + 0.1 * torch.ones(2, 4)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: frames.DFT(8, 4), "dimension <= size.*8 > 4"),
        (lambda: frames.DFT(3, 8), "even"),
        (lambda: frames.DFT(0, 8), "positive"),
        (lambda: frames.DFT(4, 16, [1, 1]), r"2 distinct numbers in \[0, 8\), got \(1, 1\)"),
        (lambda: frames.DFT(4, 16, [1, 8]), "distinct"),
        (lambda: frames.DFT(4, 16, "subset"), "'subset'"),
        (lambda: frames.DFT(10, 64, "subgroup"), "size/2 = 32: the nearest fitting size is 62"),
        (lambda: frames.Hadamard(4, 24), "power of two.*24: 16 or 32"),
        (lambda: frames.DCT(5, 4), "5 > 4"),
        (lambda: frames.DCT(2, 4, [0, 4]), r"2 distinct numbers in \[0, 4\), got \(0, 4\)"),
        (lambda: frames.DCT(2, 4, [3]), "2 distinct"),
        (lambda: frames.Haar(5, 4), "5 > 4"),
        (lambda: frames.Dense(skewed()), r"\|D D\^T - I\| = 0.48.*qr"),
        (lambda: frames.Dense(torch.eye(3, 2)), r"at least as many columns.*\(3, 2\)"),
        (lambda: frames.Dense(torch.eye(2, dtype=torch.complex64)), "real.*complex64"),
        (lambda: frames.Dense(torch.full((2, 2), math.nan)), "NaN"),
        (lambda: frames.Dense(torch.zeros(0, 2)), "shape"),
        (lambda: frames.Pointwise(frames.Pointwise(frames.DCT(2, 4))), "frame of vectors, got Pointwise"),
        (lambda: frames.Cosines(1, 0), "kernel_size must be a positive"),
        (lambda: frames.Cosines(1, 3).adjoint(torch.zeros(1, 1, 2, 5)), r"at least 3 pixels a side, got shape \(1, 1, 2, 5\)"),
        (lambda: frames.Cosines(1, 3)(torch.zeros(1, 9, 5)), r"\(batch, 9, height, width\)"),
    ],
)
def test_bad_frames_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize("name", FRAMES)
def test_bad_inputs_are_refused(name):
    make, shape = FRAMES[name]
    frame = make()
    wrong = torch.zeros(2, shape[0] + 1, *shape[1:])
    for function in (frame, frame.complement):
        with pytest.raises(ValueError, match=rf"takes {frame.size} features along axis {frame.axis}, got shape"):
            function(wrong)
        with pytest.raises(ValueError, match="complex64"):
            function(torch.zeros(2, *shape, dtype=torch.complex64))
    with pytest.raises(ValueError, match=rf"the adjoint of .* takes {frame.dimension} features"):
        frame.adjoint(torch.zeros(2, frame.dimension + 1, *shape[1:]))
