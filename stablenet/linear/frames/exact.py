"""The norm of the frames that are Parseval by construction: |D| = 1 and D D^T = I, for the exact map.

Source: docs/theorems.md, O1 and O3; nothing of these frames learns or is loaded.
"""

from __future__ import annotations

from stablenet import spectral
from stablenet.linear.frames.cosines import Cosines
from stablenet.linear.frames.dct import DCT
from stablenet.linear.frames.dft import DFT
from stablenet.linear.frames.hadamard import Hadamard
from stablenet.linear.protocol import parseval


@spectral.bound(DFT, Hadamard, DCT, Cosines)
def _bound(frame: DFT | Hadamard | DCT | Cosines) -> float:
    return 1.0


@parseval(DFT, Hadamard, DCT, Cosines)
def _defect(frame: DFT | Hadamard | DCT | Cosines) -> float:
    return 0.0
