"""Other 1-Lipschitz layers, and networks without a constraint, in the shape of `stablenet.networks.Classifier`.

Lift, downsampling and head are the same for all; what differs is what stands between. The peers' layers are those of
orthogonium and deel-torchlip; their constants are what their authors claim, not certified here. Layers without a
nonlinearity of their own (AOL, AOC, torchlip) have MaxMin after each. A convolution of torchlip divides by up to its kernel
size (the correction for its loose bound), and seven of them leave nothing of the image: its network has dense layers only.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from stablenet.interlayers import IsometricLift
from stablenet.networks.architectures import ClassifierArchitecture
from stablenet.networks.classifier import Classifier, Layer, assembled
from stablenet.networks.head import PairwiseHead
from stablenet.tableaus import HEUN, RK4


class Peer(nn.Module):
    """`convolution(channels)` and `dense(inputs)` in the places of the gradient-flow blocks of an architecture."""

    def __init__(self, a: ClassifierArchitecture, convolution: Layer, dense: Layer, *, bounded: bool) -> None:
        super().__init__()
        self.bounded, self.lift = bounded, IsometricLift(a.scale)
        self.body = assembled(a, convolution, dense)
        sizes = [layer.out_features for layer in self.body if hasattr(layer, "out_features")]
        size = sizes[-1] if sizes else math.prod(list(a.shapes())[-1])
        self.head = PairwiseHead(size, a.classes) if bounded else FreeHead(size, a.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.lift(x - 0.5)))

    def pairwise_lipschitz(self) -> Tensor:
        """Of a network without a bound: infinite, so that every radius is 0."""
        if self.bounded:
            return self.head.pairwise_lipschitz()
        return torch.full((len(self.head.weight),) * 2, torch.inf, dtype=torch.float64)


class FreeHead(nn.Linear):
    def distances(self) -> Tensor:
        return torch.ones(self.out_features, self.out_features)


class Residual(nn.Module):
    """x + B relu(A x + b), with torch's spectral normalization of both maps where asked for."""

    def __init__(self, features: int, hidden: int, *, convolution: bool, normalized: bool) -> None:
        super().__init__()
        if convolution:
            first, second = nn.Conv2d(features, hidden, 3, padding=1), nn.Conv2d(hidden, features, 3, padding=1, bias=False)
        else:
            first, second = nn.Linear(features, hidden), nn.Linear(hidden, features, bias=False)
        if normalized:
            first, second = parametrizations.spectral_norm(first), parametrizations.spectral_norm(second)
        else:
            nn.init.zeros_(second.weight)
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(x)))


def build(name: str, a: ClassifierArchitecture) -> nn.Module:
    """A network of about as many parameters as `a` gives with gradient-flow blocks (one map a block, not two)."""
    if name in TABLEAUS:
        return Classifier(replace(a, tableau=TABLEAUS[name]))
    if name.startswith("ResNet"):
        # two maps a block for one: half the hidden features, so that the number of parameters stays
        hidden = {"normalized": "spectral" in name}
        dense = partial(Residual, hidden=a.dense_features // 2, convolution=False, **hidden)
        return Peer(a, lambda c: Residual(c, c // 2, convolution=True, **hidden), dense, bounded=False)
    inputs = math.prod(list(a.shapes())[-1])
    width = _feedforward_width(inputs, a.dense_features * a.dense_blocks * inputs, a.dense_blocks)
    if name == "SLL":
        from orthogonium.layers.conv.SLL import SDPBasedLipschitzDense, SDPBasedLipschitzResBlock

        convolution = partial(SDPBasedLipschitzResBlock, inner_dim_factor=1, kernel_size=a.kernel_size)
        return Peer(a, convolution, lambda n: SDPBasedLipschitzDense(n, n, a.dense_features), bounded=True)
    a = replace(a, maxmin=True)
    if name in ("AOL", "AOC"):
        from orthogonium.layers import OrthoLinear
        from orthogonium.layers.conv.AOC import AdaptiveOrthoConv2d
        from orthogonium.layers.conv.AOL import AOLConv2D

        kind = AOLConv2D if name == "AOL" else AdaptiveOrthoConv2d
        dense = partial(OrthoLinear, out_features=width)
        return Peer(a, lambda c: kind(c, c, a.kernel_size, padding=a.kernel_size // 2), dense, bounded=True)
    if name == "torchlip":
        from deel.torchlip import SpectralLinear

        pixels = a.channels * a.height * a.width
        flat = replace(a, stages=((a.channels * a.scale**2, 0),), dense_blocks=DENSE_LAYERS)
        width = _feedforward_width(pixels, sum(p.numel() for p in Classifier(a).parameters()), DENSE_LAYERS)
        return Peer(flat, nn.Identity, partial(SpectralLinear, out_features=width), bounded=True)
    raise ValueError(f"unknown network {name!r}: known are {', '.join((*TABLEAUS, *PEERS, *FREE))}")


def _feedforward_width(inputs: int, parameters: int, layers: int) -> int:
    """w, even, with inputs w + (layers - 1) w^2 nearest to `parameters`."""
    widths = range(16, 4096, 2)
    return min(widths, key=lambda w: abs(inputs * w + (layers - 1) * w * w - parameters))


DENSE_LAYERS = 4
TABLEAUS = {"ours, Euler": ClassifierArchitecture().tableau, "ours, Heun": HEUN, "ours, RK4": RK4}
PEERS = ("SLL", "AOL", "AOC", "torchlip")
FREE = ("ResNet", "ResNet, spectral normalization")
