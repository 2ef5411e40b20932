"""Tangent kernels are inner products of gradients of wide networks, and `separate` is their maximum-margin machine (M1, M2)."""

from __future__ import annotations

import math

import cvxpy
import pytest
import torch
from torch import Tensor

from stablenet import kernels
from stablenet.convex.toys import noisy_xor
from stablenet.robustness.separation import separate


def points(count: int = 6, dimension: int = 3, seed: int = 0) -> Tensor:
    x = torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cat([x, -2 * x[:1], 3 * x[:1], torch.zeros(1, dimension, dtype=torch.float64)])


def gradients(x: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Of f(x) = sum_j u_j max(w_j.x, 0)/sqrt(m) by automatic differentiation, in each layer: (n, m d), (n, m)."""
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(width, x.shape[1], generator=generator, dtype=x.dtype)
    u = torch.randn(width, generator=generator, dtype=x.dtype)
    w, u = w.requires_grad_(), u.requires_grad_()
    rows = [torch.autograd.grad(torch.relu(w @ point) @ u / math.sqrt(width), (w, u)) for point in x]
    return torch.stack([inner.flatten() for inner, _ in rows]), torch.stack([outer for _, outer in rows])


def test_they_are_inner_products_of_gradients():
    x = points()
    scale = x.norm(dim=1)[:, None] * x.norm(dim=1)
    inner, outer = gradients(x, 20_000)
    for sampled, exact in (
        (inner @ inner.T, kernels.gated_ntk(x, x)),
        (inner @ inner.T + outer @ outer.T, kernels.ntk(x, x)),
    ):
        assert bool(((sampled - exact).abs() <= 0.04 * scale).all())
    assert not bool(((inner @ inner.T - kernels.ntk(x, x)).abs() <= 0.1 * scale).all())  # both layers are seen


def test_the_gated_kernel_is_that_of_gaussian_gates():
    """K_eta = sum eta_i D_i X X^T D_i, eta_i the share of the Gaussian vectors g with the pattern D_i = 1[X g >= 0]."""
    x = points()
    gates = torch.randn(400_000, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) @ x.T >= 0
    powers = 2 ** torch.arange(len(x))
    found, counts = torch.unique((gates * powers).sum(1), return_counts=True)
    d, eta = (found & powers[:, None] > 0).double(), counts.double() / len(gates)
    sampled = ((d * eta) @ d.T) * (x @ x.T)
    scale = x.norm(dim=1)[:, None] * x.norm(dim=1)
    assert bool(((sampled - kernels.gated_ntk(x, x)).abs() <= 4e-3 * scale).all())


def test_the_ends_of_the_angle():
    x = points()
    k = kernels.ntk(x, x)
    torch.testing.assert_close(k.diagonal(), x.square().sum(1), rtol=1e-7, atol=0)
    assert abs(float(k[0, 6])) < 1e-7 and float(k[0, 7]) == pytest.approx(3 * float(x[0].square().sum()), rel=1e-7)
    assert bool((k[-1] == 0).all()) and float(torch.linalg.eigvalsh(k).min()) > -1e-6
    right = kernels.ntk(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
    assert float(right) == pytest.approx(3 / (2 * math.pi), rel=1e-6)
    z = points(4, seed=3)[:4]
    assert torch.autograd.gradcheck(kernels.ntk, (x[:4].clone().requires_grad_(), z.requires_grad_()))
    with pytest.raises(ValueError, match="real matrices"):
        kernels.ntk(torch.zeros(2, 3), torch.zeros(2, 4))


@pytest.mark.parametrize(("n", "d"), [(12, 3), (40, 6), (60, 20)])
def test_the_separator_is_that_of_a_conic_solver(n, d):
    X, y = noisy_xor(n, d, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    kernel = kernels.ntk(X, X)  # of 12 points in 3 dimensions, where many are equal: a singular one
    found = separate(kernel, y)
    a = cvxpy.Variable(n)
    root = torch.linalg.cholesky(kernel + 1e-12 * torch.eye(n, dtype=kernel.dtype)).numpy()
    problem = cvxpy.Problem(
        cvxpy.Minimize(cvxpy.sum_squares(root.T @ a) / 2), [cvxpy.multiply(y.numpy(), kernel.numpy() @ a) >= 1]
    )
    problem.solve(solver=cvxpy.CLARABEL)
    assert found.margin == pytest.approx(1 / math.sqrt(2 * problem.value), rel=1e-5)
    values = y * (kernel @ found.coefficients)
    norm = (found.coefficients @ kernel @ found.coefficients).sqrt()
    assert float(values.min() / norm) == pytest.approx(found.margin, rel=1e-6)
    assert found.margin <= found.upper_bound * (1 + 1e-12) and found.upper_bound <= found.margin * (1 + 1e-6)


def test_no_other_coefficients_have_a_larger_margin():
    X, y = noisy_xor(30, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel, found = kernels.ntk(X, X), separate(kernels.ntk(X, X), y)
    generator = torch.Generator().manual_seed(1)
    for size in (1e-3, 1e-1, 1.0):
        noise = torch.randn(200, 30, generator=generator, dtype=torch.float64)
        others = found.coefficients + size * found.coefficients.norm() * noise / noise.norm(dim=1, keepdim=True)
        norms = ((others @ kernel) * others).sum(1).sqrt()
        assert float((y * (others @ kernel)).min(1).values.div(norms).max()) <= found.upper_bound


@pytest.mark.parametrize(
    ("kernel", "y", "text"),
    [
        (torch.eye(3), torch.ones(2), "a kernel matrix"),
        (torch.ones(2, 3), torch.ones(2), "a kernel matrix"),
        (torch.zeros(0, 0), torch.zeros(0), "a kernel matrix"),
        (torch.eye(2) * math.nan, torch.ones(2), "not finite"),
        (torch.tensor([[1.0, 0.5], [0.2, 1.0]]), torch.ones(2), "not symmetric"),
        (torch.eye(2), torch.tensor([0.0, 1.0]), "labels must be 1 and -1"),
        (torch.ones(2, 2), torch.tensor([1.0, -1.0]), "does not separate"),
        (torch.zeros(2, 2), torch.tensor([1.0, -1.0]), "does not separate"),
    ],
)
def test_what_cannot_be_separated_is_refused(kernel, y, text):
    with pytest.raises(ValueError, match=text):
        separate(kernel, y)
