"""Rotations of features, R^T R = I: fixed, learned as reflections or by Cayley's map, or fitted without labels.

Source: products of reflections in compact form [SchreiberVanLoan1989], [Cayley1846], the orthogonal Procrustes problem
[Schoenemann1966]; alternation with the steps of a block [LyuTsang2021]; docs/theorems.md, O4 and O5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet import spectral
from stablenet.certificate import require_finite
from stablenet.linear.isometry import matrix_defect, norm_bound, require_isometry
from stablenet.linear.products import require_features
from stablenet.linear.protocol import Frame, parseval, require_positive
from stablenet.spectral.layers import require_shape

SHORTEST, LONGEST = 1e-10, 1e10
"""Lengths of reflection vectors that are normalized without under- or overflow in any precision."""


class _Rotation(nn.Module):
    """What the rotations share: a matrix, and the axis of the features that it turns; the classes below are final."""

    def __init__(self, dimension: int, axis: int) -> None:
        super().__init__()
        require_positive(dimension=dimension)
        self.dimension, self.axis = dimension, axis

    def forward(self, x: Tensor) -> Tensor:
        require_features(type(self).__name__, x, self.dimension, self.axis)
        return turned(self.dense().to(x.dtype), x, self.axis)

    def adjoint(self, u: Tensor) -> Tensor:
        """R^T u."""
        require_features(f"the adjoint of {type(self).__name__}", u, self.dimension, self.axis)
        return turned(self.dense().T.to(u.dtype), u, self.axis)

    def dense(self) -> Tensor:
        """R as a (dimension, dimension) matrix, differentiable."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.dimension}, axis={self.axis}"


class Fixed(_Rotation):
    """x -> R x along an axis, R given and kept as a buffer, saved with a network; nothing learns.

    Parameters
    ----------
    matrix : (dimension, dimension), orthogonal up to rounding, in float64 the best.
    axis : where the features lie: -1 for vectors, 1 for images.

    Raises
    ------
    ValueError : not a real, finite, square matrix, or |R R^T - I| above 1e-5, which the message tells.
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor, *, axis: int = -1) -> None:
        _require_square(matrix)
        super().__init__(len(matrix), axis)
        self.register_buffer("matrix", require_isometry("Fixed", matrix).to(matrix))

    @classmethod
    def random(cls, dimension: int, *, axis: int = -1, generator: torch.Generator | None = None) -> Fixed:
        """From the Haar measure, in float64; seed 0 when generator is None."""
        require_positive(dimension=dimension)
        generator = generator or torch.Generator().manual_seed(0)
        q, r = torch.linalg.qr(torch.randn(dimension, dimension, dtype=torch.float64, generator=generator))
        return cls(q * r.diagonal().sign(), axis=axis)

    def dense(self) -> Tensor:
        return self.matrix

    @torch.no_grad()
    def assign(self, matrix: Tensor) -> None:
        """Take another rotation, as `procrustes` gives it.

        Raises
        ------
        ValueError : as at construction, or another dimension.
        """
        if tuple(matrix.shape) != tuple(self.matrix.shape):
            raise ValueError(f"Fixed needs a matrix of shape {tuple(self.matrix.shape)}, got {tuple(matrix.shape)}")
        self.matrix.copy_(require_isometry("Fixed", matrix))


class Householder(_Rotation):
    """x -> H_1 ... H_k x, H_i = I - 2 v_i v_i^T/|v_i|^2: orthogonal whatever the vectors, computed in float64.

    H_1 ... H_k = I - V T V^T, V the unit vectors, T^(-1) = I/2 + the part of V^T V above its diagonal. For k = d these are all
    orthogonal matrices of determinant (-1)^d.

    Parameters
    ----------
    dimension : d.
    reflections : k, d when None.
    axis : where the features lie: -1 for vectors, 1 for images.
    generator : of the vectors to start from; torch's own when None.

    Raises
    ------
    ValueError : dimension or reflections is no positive integer.
    """

    def __init__(
        self, dimension: int, reflections: int | None = None, *, axis: int = -1, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(dimension, axis)
        self.reflections = dimension if reflections is None else reflections
        require_positive(reflections=self.reflections)
        self.vectors = nn.Parameter(torch.empty(self.reflections, dimension))
        nn.init.normal_(self.vectors, generator=generator)

    def dense(self) -> Tensor:
        v = functional.normalize(self.vectors.double(), dim=1)
        identity = torch.eye(max(v.shape), dtype=v.dtype, device=v.device)
        inverse = (v @ v.T).triu(1) + identity[: len(v), : len(v)] / 2
        mixed = torch.linalg.solve_triangular(inverse, v, upper=True)
        return identity[: self.dimension, : self.dimension] - v.T @ mixed


class Cayley(_Rotation):
    """x -> (I + S)^(-1) (I - S) x, S = -S^T learned: orthogonal whatever S, all rotations without the eigenvalue -1.

    Parameters
    ----------
    dimension : d; d (d - 1)/2 numbers learn, the entries of S above its diagonal.
    axis : where the features lie: -1 for vectors, 1 for images.
    generator : of the entries to start from; torch's own when None.

    Raises
    ------
    ValueError : dimension is no positive integer.
    """

    def __init__(self, dimension: int, *, axis: int = -1, generator: torch.Generator | None = None) -> None:
        super().__init__(dimension, axis)
        self.entries = nn.Parameter(torch.empty(dimension * (dimension - 1) // 2))
        nn.init.normal_(self.entries, std=dimension**-0.5, generator=generator)

    def dense(self) -> Tensor:
        d, entries = self.dimension, self.entries.double()
        rows, columns = torch.triu_indices(d, d, 1, device=entries.device)
        skew = entries.new_zeros(d, d).index_put((rows, columns), entries)
        skew, identity = skew - skew.T, torch.eye(d, dtype=entries.dtype, device=entries.device)
        return torch.linalg.solve(identity + skew, identity - skew)


def turned(matrix: Tensor, x: Tensor, axis: int = -1) -> Tensor:
    """The matrix times the features of x, which lie along the axis."""
    return functional.linear(x.movedim(axis, -1), matrix).movedim(-1, axis)


@torch.no_grad()
def procrustes(features: Tensor, x: Tensor, *, axis: int = -1) -> Tensor:
    """The orthogonal R with the least sum of |R x - features|^2: U V^T of the singular value decomposition of features x^T.

    Shapes: both (batch, d) or, axis = 1, (batch, d, height, width); R is (d, d), in float64.

    Raises
    ------
    ValueError : shapes that differ, complex numbers, NaN or infinity.
    """
    if features.shape != x.shape:
        raise ValueError(f"procrustes needs features and x of one shape, got {tuple(features.shape)} and {tuple(x.shape)}")
    pair = []
    for part in (features, x):
        size = part.shape[axis] if part.ndim > max(axis, 0) else 0
        flat = require_features("procrustes", part, size, axis).movedim(axis, -1).reshape(-1, size).double()
        if not torch.isfinite(flat).all():
            raise ValueError("procrustes needs finite numbers, got NaN or infinity")
        pair.append(flat)
    u, _, v = torch.linalg.svd(pair[0].T @ pair[1])
    return u @ v


@torch.no_grad()
def alternating(
    frame: Frame, step: Callable[[Tensor, Tensor], Tensor], x: Tensor, *, start: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """(R_1, y_1), (R_2, y_2), ...: y+ = step(R x, y), R+ = the best for D y+; |R x - D y|^2/2 + phi(y) never increases.

    Parameters
    ----------
    frame : D.
    step : (u, y) to y+, descending on |u - D y|^2/2 + phi(y), as a step of `stablenet.blocks.NOK`.
    x : a batch without labels, features along the frame's axis.
    start : R_0, the identity when None.

    The iterator has no end: the caller stops.
    """
    rotation = torch.eye(frame.dimension, dtype=torch.float64, device=x.device) if start is None else start.double()
    y = frame.adjoint(x) * 0
    while True:
        y = step(turned(rotation.to(x), x, frame.axis), y)
        rotation = procrustes(frame(y), x, axis=frame.axis)
        yield rotation, y


def _require_square(matrix: Tensor) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"Fixed needs a square matrix, got shape {tuple(matrix.shape)}")


@spectral.bound(Fixed)
def _fixed_bound(module: Fixed) -> float:
    return norm_bound(_matrix_of(module))


@parseval(Fixed)
def _fixed_defect(module: Fixed) -> float:
    return matrix_defect(_matrix_of(module))


def _matrix_of(module: Fixed) -> Tensor:
    require_shape(module, module.matrix, (module.dimension, module.dimension))
    return module.matrix


@spectral.bound(Householder, Cayley)
def _bound(module: Householder | Cayley) -> float:
    return 1.0 + parseval.of(module)


@parseval(Householder)
def _reflections(module: Householder) -> float:
    require_shape(module, module.vectors, (module.reflections, module.dimension))
    require_finite(module)
    lengths = torch.linalg.vector_norm(module.vectors.detach().double(), dim=1)
    if not bool(((lengths >= SHORTEST) & (lengths <= LONGEST)).all()):
        raise ValueError(
            f"Householder has reflection vectors of length {float(lengths.min()):.3g} to {float(lengths.max()):.3g}, "
            f"which must lie in [{SHORTEST:g}, {LONGEST:g}]: rescale them, the reflections stay the same"
        )
    return 0.0


@parseval(Cayley)
def _cayley(module: Cayley) -> float:
    require_shape(module, module.entries, (module.dimension * (module.dimension - 1) // 2,))
    require_finite(module)
    return 0.0
