"""The linear systems of a Newton step: (diag(slope) + sigma A J A^T) p = g, J a derivative of the penalty's proximal map.

Source: [LiSunToh2018] for the structure. For gated networks A J A^T needs no column of A: sum_i a_i D_i X X^T D_i is the Gram
matrix X X^T times the weighted products of the masks, entry by entry, and the rest has one column a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stablenet.convex import cones
from stablenet.convex.products import Products
from stablenet.convex.program import Program, Prox

DIRECT = 3000
"""Up to so many data a factorization is faster than conjugate gradients, and more accurate."""


@dataclass(frozen=True)
class Derivative:
    """J at a proximal step: share I + (1 - share) w w^T in every group that is not zero, w its direction.

    masks : (k, n) of the groups, in X's type.
    owners : (k,) the output of each group; None where groups hold all outputs.
    shares : (k,); directions (k, outputs, d) of length one, signs included.
    faces : bases (d, q) of the faces of the cones; None without cones.
    coupling : 1/k where the bound of the sum holds with equality, else 0: it takes the mean of <w, .> away.
    """

    X: Tensor
    masks: Tensor
    owners: Tensor | None
    shares: Tensor
    directions: Tensor
    faces: tuple[Tensor, ...] | None
    coupling: float

    @staticmethod
    def at(program: Program, prox: Prox) -> Derivative:
        """From a proximal step of a program."""
        s, i, c = prox.nonzero.T
        patterns = program.gates.patterns[i]
        masks = patterns.to(program.X.dtype)
        coupling = 1 / len(s) if prox.bounded else 0.0
        if not program.cones:
            V = prox.variables[s, i]
            directions = V / torch.linalg.vector_norm(V, dim=(1, 2), keepdim=True)
            return Derivative(program.X, masks, None, prox.shares, directions, None, coupling)
        assert prox.multipliers is not None
        V = prox.variables[s, i, c] * (1 - 2 * s[:, None])
        directions = V.new_zeros(len(V), program.shape[2], V.shape[1])
        directions[torch.arange(len(V), device=V.device), c] = V / torch.linalg.vector_norm(V, dim=1, keepdim=True)
        faces = tuple(cones.face(program.X, p, m) for p, m in zip(patterns, prox.multipliers, strict=True))
        return Derivative(program.X, masks, c, prox.shares, directions, faces, coupling)

    def columns(self) -> Tensor:
        """D_i X w of every group, (outputs, n, k)."""
        return (self.directions.transpose(0, 1) @ self.X.T * self.masks).transpose(1, 2)

    def middle(self) -> Tensor:
        """(k, k): what stands between the columns, diag(1 - shares) - coupling."""
        return torch.diag(1 - self.shares) - self.coupling

    def diagonal_blocks(self, outputs: int, gram: Tensor) -> Tensor:
        """sum over groups of share D X P X^T D, P the projection onto the face; (outputs, n, n), gram = X X^T."""
        if self.faces is None or self.owners is None:
            return (gram * (self.masks.T @ (self.shares[:, None] * self.masks))).expand(outputs, -1, -1)
        blocks = gram.new_zeros(outputs, *gram.shape)
        for c in range(outputs):
            mine = torch.nonzero(self.owners == c)[:, 0].tolist()
            if mine:
                parts = [self.shares[g].sqrt() * self.masks[g][:, None] * (self.X @ self.faces[g]) for g in mine]
                stacked = torch.cat(parts, 1)
                blocks[c] = stacked @ stacked.T
        return blocks

    def apply(self, R: Tensor) -> Tensor:
        """A J A^T R for R (n, outputs), over the groups that are not zero."""
        products = Products(self.X, self.masks)
        T = products.adjoint(R)
        along = (T * self.directions).sum((1, 2))
        across = self.shares[:, None, None] * T
        if self.faces is not None and self.owners is not None:
            across = torch.zeros_like(T)
            for g, (face, c) in enumerate(zip(self.faces, self.owners.tolist(), strict=True)):
                across[g, c] = self.shares[g] * (face @ (face.T @ T[g, c]))
        along = (1 - self.shares) * along - self.coupling * along.sum()
        return products.forward(across + along[:, None, None] * self.directions)


def solve_direct(derivative: Derivative, slope: Tensor, sigma: float, gram: Tensor, g: Tensor) -> Tensor:
    """By Cholesky factors of the diagonal blocks, one an output, and Woodbury's formula for what couples them; (n, outputs)."""
    n, outputs = g.shape
    blocks = sigma * derivative.diagonal_blocks(outputs, gram)
    columns, middle = derivative.columns(), sigma * derivative.middle()
    diagonal = torch.diag_embed(slope.T + 1e-14 * blocks.diagonal(dim1=1, dim2=2).amax().clamp_min(1e-300))
    if outputs == 1:
        factor = _cholesky(blocks + diagonal + columns @ middle @ columns.transpose(1, 2))
        return torch.cholesky_solve(g, factor[0])
    factor = _cholesky(blocks + diagonal)
    first = torch.cholesky_solve(g.T[..., None], factor)[..., 0]
    inner = torch.cholesky_solve(columns, factor)
    small = torch.einsum("cnk,cnl->kl", columns, inner)
    identity = torch.eye(len(small), dtype=g.dtype, device=g.device)
    weights = torch.linalg.solve(identity + middle @ small, middle @ torch.einsum("cnk,cn->k", columns, first))
    return (first - inner @ weights).T


def solve_by_products(
    derivative: Derivative, slope: Tensor, sigma: float, g: Tensor, *, goal: float, most: int = 300
) -> Tensor:
    """By conjugate gradients, diagonally preconditioned, to a residual of goal or after `most` products; (n, outputs)."""
    sizes = derivative.X.square().sum(1)
    scale = slope + sigma * (sizes * (derivative.shares @ derivative.masks))[:, None]
    p, residual = torch.zeros_like(g), g.clone()
    z = residual / scale
    direction, rho = z, (residual * z).sum()
    for _ in range(most):
        if float(torch.linalg.vector_norm(residual)) <= goal:
            break
        product = slope * direction + sigma * derivative.apply(direction)
        step = rho / (direction * product).sum()
        p, residual = p + step * direction, residual - step * product
        z = residual / scale
        rho, previous = (residual * z).sum(), rho
        direction = z + rho / previous * direction
    return p


def _cholesky(matrices: Tensor) -> Tensor:
    """Factors, with as much added to the diagonal as rounding asks for."""
    factor, info = torch.linalg.cholesky_ex(matrices)
    scale, added = float(matrices.diagonal(dim1=-2, dim2=-1).amax()), 1e-14
    while bool((info != 0).any()) and added < 1:
        identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
        factor, info = torch.linalg.cholesky_ex(matrices + added * scale * identity)
        added *= 100
    return factor
