"""Each theorem's averagedness against dense matrices: random problems, denoisers that are linear and not symmetric.

The inequality |Td|^2 + (1 - alpha)/alpha |(I - T)d|^2 <= |d|^2 of an affine map is one eigenvalue, in the algorithm's own norm.
"""

from __future__ import annotations

import deepinv
import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

import pnp
import stablenet.certificate
from pnp.algorithms import Algorithm
from pnp.points import Point
from stablenet.certificate import Certificate, CertificateTree

SHAPE = (1, 2, 3)
SIZE = 6


class Mixture(nn.Module):
    """(1 - alpha) I + alpha N, N a random orthogonal matrix: alpha-averaged and no less."""

    def __init__(self, averagedness: float, seed: int) -> None:
        super().__init__()
        self.averagedness = averagedness
        generator = torch.Generator().manual_seed(seed)
        orthogonal = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64)).Q
        self.matrix = (1 - averagedness) * torch.eye(SIZE, dtype=torch.float64) + averagedness * orthogonal

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        return (x.flatten(1) @ self.matrix.T).reshape(x.shape)


@stablenet.certificate.rule(Mixture)
def _mixture(module: Mixture) -> CertificateTree:
    return CertificateTree("Mixture", Certificate(1.0, module.averagedness))


def problem(seed: int, rows: int) -> pnp.Problem:
    """Dense and badly conditioned, or without full rank; |A|^2 is known."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, SIZE, generator=generator, dtype=torch.float64)
    matrix = matrix * (torch.rand((), generator=generator, dtype=torch.float64) * 3 + 0.1) / torch.linalg.matrix_norm(matrix, 2)
    physics = deepinv.physics.LinearPhysics(
        A=lambda x: x.flatten(1) @ matrix.T, A_adjoint=lambda y: (y @ matrix).reshape(-1, *SHAPE)
    )
    smoothness = float(torch.linalg.matrix_norm(matrix, 2)) ** 2 * (1 + 1e-12)
    y = torch.rand(1, rows, generator=generator, dtype=torch.float64)
    return pnp.pose(y, physics, noise_level=0.03, smoothness=smoothness)


def jacobian(run: pnp.Run) -> tuple[np.ndarray, np.ndarray]:
    """The matrix of T, and the matrix of the norm by polarization."""
    start = run.algorithm.start(run.problem, torch.zeros_like(run.start))
    sizes = [t[0].numel() for t in start]

    def point(vectors: Tensor) -> Point:
        return tuple(part.reshape(-1, *t.shape[1:]) for part, t in zip(vectors.split(sizes, 1), start, strict=True))

    def applied(vectors: Tensor) -> Tensor:
        images = run.algorithm.apply(run.problem, run.denoise, point(vectors), accuracy=1e-14).point
        return torch.cat([t.flatten(1) for t in images], 1)

    eye = torch.eye(sum(sizes), dtype=torch.float64)
    with torch.no_grad():
        matrix = torch.cat([applied(e[None]) - applied(0 * e[None]) for e in eye])
        squares = [run.algorithm.norm(run.problem, point(e[None])) ** 2 for e in eye]
        gram = torch.zeros_like(eye)
        for i, e in enumerate(eye):
            for j, d in enumerate(eye):
                both = run.algorithm.norm(run.problem, point((e + d)[None])) ** 2
                gram[i, j] = (both - squares[i] - squares[j]) / 2
    return matrix.T.numpy(), gram.numpy()


def worst(run: pnp.Run, averagedness: float) -> float:
    """The largest left side over the right side."""
    matrix, gram = jacobian(run)
    rest = np.eye(len(matrix)) - matrix
    left = matrix.T @ gram @ matrix + (1 - averagedness) / averagedness * rest.T @ gram @ rest
    return float(scipy.linalg.eigh((left + left.T) / 2, gram, eigvals_only=True)[-1])


def planned(algorithm: Algorithm, seed: int, averagedness: float) -> pnp.Run:
    posed = problem(seed, rows=8 if seed % 2 else 4)
    return pnp.plan(algorithm, posed, pnp.prior(Mixture(averagedness, seed)), denoiser_noise_level=0.05)


CASES = {
    "pgd": (pnp.PGD(), 0.9),
    "pgd-firm": (pnp.PGD(), 0.5),
    "hqs": (pnp.HQS(), 0.8),
    "hqs-firm": (pnp.HQS(), 0.5),
    "drs": (pnp.DRS(), 0.5),
    "admm-relaxed": (pnp.ADMM(), 0.9),
    "red": (pnp.RED(), 1.0),
    "red-averaged": (pnp.RED(weight=2.0), 0.7),
    "condat-vu": (pnp.CondatVu(), 0.5),
    "condat-vu-smooth": (pnp.CondatVu(fidelity="smooth"), 0.5),
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", CASES)
def test_the_map_is_as_averaged_as_claimed(name: str, seed: int) -> None:
    run = planned(CASES[name][0], seed, CASES[name][1])
    assert worst(run, run.guarantee.averagedness) <= 1 + 1e-7


@pytest.mark.parametrize("name", ["pgd", "hqs", "drs", "red", "condat-vu-smooth"])
def test_the_claim_is_not_idle(name: str) -> None:
    """Some random instance refutes a claim that is a third smaller."""
    runs = [planned(CASES[name][0], seed, CASES[name][1]) for seed in range(6)]
    assert max(worst(run, run.guarantee.averagedness * 2 / 3) for run in runs) > 1 + 1e-6


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("algorithm", [pnp.PGD(), pnp.HQS()], ids=["pgd", "hqs"])
def test_the_contraction_is_as_claimed(algorithm: Algorithm, seed: int) -> None:
    """With mu > 0 given: |T| <= q in the spectral norm."""
    physics = deepinv.physics.Inpainting(
        img_size=SHAPE, mask=0.3 + torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )
    y = torch.rand(1, *SHAPE, dtype=torch.float64)
    posed = pnp.pose(y, physics, noise_level=0.03)
    run = pnp.plan(algorithm, posed, pnp.prior(Mixture(0.9, seed)), denoiser_noise_level=0.05)
    matrix, _ = jacobian(run)
    assert np.linalg.norm(matrix, 2) <= run.guarantee.contraction < 1
