"""The undecimated cosine transform of images on a torus as a frame: all k x k cosines at every pixel, divided by k.

Source: the squared transforms of an orthonormal basis of k x k kernels add up to k^2 at every frequency (docs/theorems.md, O3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet.linear.adjoints import fold_circular, fold_product
from stablenet.linear.frames.dct import DCT
from stablenet.linear.products import Table, require_features, through
from stablenet.linear.protocol import require_positive


class Cosines(nn.Module):
    """D^T u: every channel of u by every orthonormal k x k cosine (DCT-II), a circular convolution, divided by k.

    Feature c k^2 + i k + j is channel c by the cosine of frequency i down the rows and j along the columns.

    Parameters
    ----------
    channels : of the image, the dimension; the size is channels k^2.
    kernel_size : k, at most the height and width of an image.

    Shapes: forward (batch, channels k^2, height, width) to (batch, channels, height, width), adjoint back.

    Raises
    ------
    ValueError : channels or kernel_size is no positive integer; an image is smaller than a kernel.
    """

    axis: int = 1

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        require_positive(channels=channels, kernel_size=kernel_size)
        self.kernel_size, self.dimension, self.size = kernel_size, channels, channels * kernel_size**2
        waves = DCT(kernel_size, kernel_size).dense()
        kernels = torch.einsum("ir,jc->ijrc", waves, waves).reshape(-1, 1, kernel_size, kernel_size)
        self._kernels = Table(kernels / kernel_size)
        self._padding = ((kernel_size - 1) // 2, kernel_size // 2)

    def forward(self, y: Tensor) -> Tensor:
        return through(self._product, self._transpose, self._checked("Cosines", y, self.size))

    def adjoint(self, u: Tensor) -> Tensor:
        return through(self._transpose, self._product, self._checked("the adjoint of Cosines", u, self.dimension))

    def complement(self, y: Tensor) -> Tensor:
        """(I - D^T D) y."""
        return y - self.adjoint(self(y))

    def _checked(self, name: str, image: Tensor, channels: int) -> Tensor:
        require_features(name, image, channels, 1)
        if image.ndim != 4 or min(image.shape[2:]) < self.kernel_size:
            raise ValueError(
                f"{name} takes (batch, {channels}, height, width), at least {self.kernel_size} pixels a side, "
                f"got shape {tuple(image.shape)}"
            )
        return image

    def _product(self, y: Tensor) -> Tensor:
        features = y.reshape(-1, self.kernel_size**2, *y.shape[2:])
        wide = fold_product(features, self._kernels.like(y))
        return fold_circular(wide, self._padding, y.shape[2:]).reshape(len(y), self.dimension, *y.shape[2:])

    def _transpose(self, u: Tensor) -> Tensor:
        wide = functional.pad(u.reshape(-1, 1, *u.shape[2:]), self._padding * 2, mode="circular")
        return functional.conv2d(wide, self._kernels.like(u)).reshape(len(u), self.size, *u.shape[2:])

    def dense(self, height: int | None = None, width: int | None = None) -> Tensor:
        """D on a torus as a (channels height width, channels k^2 height width) matrix in float64; k x k pixels by default."""
        rows, columns = height or self.kernel_size, width or self.kernel_size
        pixels = torch.eye(self.dimension * rows * columns, dtype=torch.float64)
        return self.adjoint(pixels.reshape(-1, self.dimension, rows, columns)).flatten(1)

    @property
    def coherence(self) -> float:
        """The largest |cosine| between two columns of D on an image of at least 2 k - 1 pixels a side."""
        atoms = self._kernels.exact * self.kernel_size
        shifted = functional.conv2d(functional.pad(atoms, [self.kernel_size - 1] * 4), atoms)
        itself = torch.arange(len(atoms))
        shifted[itself, itself, self.kernel_size - 1, self.kernel_size - 1] = 0
        return float(shifted.abs().max())

    def extra_repr(self) -> str:
        return f"{self.dimension}, {self.kernel_size}"
