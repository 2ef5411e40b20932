"""Frames as matrices: a given one with orthonormal rows, and a random one from the Haar measure.

Source: the QR factors of a Gaussian matrix, signs of the diagonal fixed [Mezzadri2007]; docs/theorems.md, O1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet import spectral
from stablenet.linear.frames.columns import largest_cosine, require_sizes
from stablenet.linear.isometry import matrix_defect, norm_bound, require_isometry
from stablenet.linear.products import Table, require_features
from stablenet.linear.protocol import parseval


class _Stored(nn.Module):
    """A frame whose matrix is kept, in float64, and used in the precision of the input."""

    axis: int = -1

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = Table(matrix)
        self.dimension, self.size = matrix.shape

    def forward(self, y: Tensor) -> Tensor:
        return functional.linear(require_features(type(self).__name__, y, self.size), self.matrix.like(y))

    def adjoint(self, u: Tensor) -> Tensor:
        return require_features(f"the adjoint of {type(self).__name__}", u, self.dimension) @ self.matrix.like(u)

    def complement(self, y: Tensor) -> Tensor:
        """(I - D^T D) y."""
        return y - self.adjoint(self(y))

    def dense(self) -> Tensor:
        """D as a (d, N) matrix in float64."""
        return self.matrix.exact.clone()

    @property
    def coherence(self) -> float:
        """The largest |cosine| between two columns of D."""
        return largest_cosine(self.matrix.exact)

    def extra_repr(self) -> str:
        return f"{self.dimension}, {self.size}"


class Dense(_Stored):
    """D a given (d, N) matrix with D D^T = I up to rounding.

    Shapes: forward (..., N) to (..., d), adjoint (..., d) to (..., N).

    Raises
    ------
    ValueError : not a real, finite matrix with d <= N, or |D D^T - I| above 1e-5, which the message tells.
    """

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(require_isometry("Dense", matrix))


class Haar(_Stored):
    """Orthonormal rows at random, no direction preferred: a product with a stored matrix, the frame to compare with.

    Parameters
    ----------
    dimension, size : d <= N.
    generator : seed 0 when None, the same frame every time.

    Shapes: forward (..., N) to (..., d), adjoint (..., d) to (..., N).

    Raises
    ------
    ValueError : d > N.
    """

    def __init__(self, dimension: int, size: int, *, generator: torch.Generator | None = None) -> None:
        require_sizes("Haar", dimension, size)
        generator = generator or torch.Generator().manual_seed(0)
        q, r = torch.linalg.qr(torch.randn(size, dimension, dtype=torch.float64, generator=generator))
        super().__init__((q * r.diagonal().sign()).T.contiguous())


@spectral.bound(Dense, Haar)
def _bound(frame: _Stored) -> float:
    return norm_bound(frame.matrix.current())


@parseval(Dense, Haar)
def _defect(frame: _Stored) -> float:
    return matrix_defect(frame.matrix.current())
