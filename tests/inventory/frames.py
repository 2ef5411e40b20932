"""Every Parseval frame and every rotation, with the shape of what it takes (batch excluded)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from stablenet.linear import frames, rotation

FRAMES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dft": (lambda: frames.DFT(16, 64), (64,)),
    "dft-odd": (lambda: frames.DFT(6, 30, [0, 4, 13]), (30,)),
    "dft-subgroup": (lambda: frames.DFT(12, 62, "subgroup"), (62,)),
    "dft-square": (lambda: frames.DFT(8, 8), (8,)),
    "hadamard": (lambda: frames.Hadamard(20, 128), (128,)),
    "hadamard-small": (lambda: frames.Hadamard(5, 16, generator=torch.Generator().manual_seed(3)), (16,)),
    "hadamard-one": (lambda: frames.Hadamard(1, 1), (1,)),
    "dct": (lambda: frames.DCT(9, 24), (24,)),
    "dct-high": (lambda: frames.DCT(20, 24), (24,)),
    "dct-some": (lambda: frames.DCT(5, 16, [13, 0, 8, 7, 15]), (16,)),
    "dct-some-odd": (lambda: frames.DCT(4, 9, [4, 8, 5, 1]), (9,)),
    "dct-odd": (lambda: frames.DCT(11, 15), (15,)),
    "dct-square": (lambda: frames.DCT(12, 12), (12,)),
    "dct-one": (lambda: frames.DCT(1, 1), (1,)),
    "haar": (lambda: frames.Haar(7, 18), (18,)),
    "dense": (lambda: frames.Dense(torch.linalg.qr(torch.randn(9, 4, dtype=torch.float64)).Q.T), (9,)),
    "pointwise": (lambda: frames.Pointwise(frames.DFT(4, 12)), (12, 5, 3)),
    "pointwise-dense": (lambda: frames.Pointwise(frames.Haar(3, 8)), (8, 2, 6)),
    "cosines": (lambda: frames.Cosines(2, 3), (18, 6, 5)),
    "cosines-even": (lambda: frames.Cosines(1, 4), (16, 4, 9)),
    "cosines-one": (lambda: frames.Cosines(2, 1), (2, 3, 1)),
}

ROTATIONS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "householder": (lambda: rotation.Householder(7), (7,)),
    "householder-few": (lambda: rotation.Householder(6, 2, axis=1), (6, 4, 3)),
    "householder-many": (lambda: rotation.Householder(3, 8), (3,)),
    "cayley": (lambda: rotation.Cayley(6), (6,)),
    "cayley-image": (lambda: rotation.Cayley(4, axis=1), (4, 2, 5)),
    "cayley-one": (lambda: rotation.Cayley(1), (1,)),
    "fixed": (lambda: rotation.Fixed.random(5), (5,)),
    "fixed-image": (lambda: rotation.Fixed.random(4, axis=1), (4, 3, 3)),
}
