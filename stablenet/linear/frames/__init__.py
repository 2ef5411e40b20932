"""Parseval frames, maps D without weights with D D^T = I: rows of fast transforms, matrices, and their forms for images.

Every frame has forward (D y), adjoint (D^T u), complement (y - D^T D y, faster than in two steps), dense() and coherence;
`axis` says where its features lie: -1 for vectors, 1 for images.
"""

from stablenet.linear.frames import exact
from stablenet.linear.frames.cosines import Cosines
from stablenet.linear.frames.dct import DCT
from stablenet.linear.frames.dense import Dense, Haar
from stablenet.linear.frames.dft import DFT
from stablenet.linear.frames.hadamard import Hadamard
from stablenet.linear.frames.pointwise import Pointwise

__all__ = ["Cosines", "DCT", "DFT", "Dense", "Haar", "Hadamard", "Pointwise", "exact"]
