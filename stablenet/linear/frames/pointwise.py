"""A frame over the channels of an image, the same at every pixel: a 1 x 1 convolution, computed as fast as the frame.

Source: D (x) I has the columns of D and (D (x) I)(D (x) I)^T = D D^T (x) I (docs/theorems.md, O1).
"""

from __future__ import annotations

from torch import Tensor, nn

from stablenet import spectral
from stablenet.linear.frames.dct import DCT
from stablenet.linear.frames.dense import Dense, Haar
from stablenet.linear.frames.dft import DFT
from stablenet.linear.frames.hadamard import Hadamard
from stablenet.linear.products import require_features
from stablenet.linear.protocol import parseval

VectorFrame = DFT | Hadamard | DCT | Dense | Haar


class Pointwise(nn.Module):
    """(batch, N, height, width) to (batch, d, height, width): D along the channels, for one axis, three, or none as well.

    Parameters
    ----------
    frame : of vectors, d and N its numbers of channels.

    Shapes: forward (batch, N, ...) to (batch, d, ...), adjoint back; fastest in channels_last.

    Raises
    ------
    ValueError : the frame is one of images already.
    """

    axis: int = 1

    def __init__(self, frame: VectorFrame) -> None:
        super().__init__()
        if frame.axis != -1:
            raise ValueError(f"Pointwise needs a frame of vectors, got {type(frame).__name__}, which takes images itself")
        self.frame, self.dimension, self.size = frame, frame.dimension, frame.size

    def forward(self, y: Tensor) -> Tensor:
        return self.frame(require_features("Pointwise", y, self.size, 1).movedim(1, -1)).movedim(-1, 1)

    def adjoint(self, u: Tensor) -> Tensor:
        u = require_features("the adjoint of Pointwise", u, self.dimension, 1)
        return self.frame.adjoint(u.movedim(1, -1)).movedim(-1, 1)

    def complement(self, y: Tensor) -> Tensor:
        """(I - D^T D) y."""
        return self.frame.complement(require_features("Pointwise", y, self.size, 1).movedim(1, -1)).movedim(-1, 1)

    def dense(self) -> Tensor:
        """D, at one pixel, as a (d, N) matrix in float64."""
        return self.frame.dense()

    @property
    def coherence(self) -> float:
        """The largest |cosine| between two columns of D."""
        return self.frame.coherence


@spectral.bound(Pointwise)
def _bound(frame: Pointwise) -> float:
    return spectral.upper_bound(frame.frame)


@parseval(Pointwise)
def _defect(frame: Pointwise) -> float:
    return parseval.of(frame.frame)
