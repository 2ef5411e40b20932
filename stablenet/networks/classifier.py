"""A classifier whose logits have known Lipschitz constants, also in pairs: every prediction comes with a radius.

Source: gradient-flow blocks [Sherry2024]; the radius min_j (f_y - f_j) / Lip(f_y - f_j) is docs/theorems.md, R1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from stablenet.blocks.gradient_flow import GradientFlow
from stablenet.certificate import CertificateTree, NotCertified, certify, rule
from stablenet.interlayers import IsometricLift, MaxMin, NormPool2d, ZeroChannelLift
from stablenet.linear import Conv2d, Dense, WeightedMap
from stablenet.networks.architectures import ClassifierArchitecture
from stablenet.networks.head import PairwiseHead
from stablenet.rules import require_unaltered

Layer = Callable[[int], nn.Module]


def assembled(a: ClassifierArchitecture, convolution: Layer, dense: Layer) -> nn.Sequential:
    """What stands between lift and head: stages of convolution(channels), downsampling, Flatten, blocks of dense(inputs).

    A dense layer that changes the number of features says so by `out_features`.
    """
    layers: list[nn.Module] = []

    def append(block: nn.Module) -> None:
        layers.extend([block, MaxMin()] if a.maxmin else [block])

    for k, (channels, blocks) in enumerate(a.stages):
        if k:
            layers.append(nn.PixelUnshuffle(2) if a.downsampling == "unshuffle" else NormPool2d(2))
        layers.append(ZeroChannelLift(channels))
        for _ in range(blocks):
            append(convolution(channels))
    layers.append(nn.Flatten())
    size = math.prod(list(a.shapes())[-1])
    for _ in range(a.dense_blocks):
        block = dense(size)
        append(block)
        size = getattr(block, "out_features", size)
    return nn.Sequential(*layers)


class Classifier(nn.Module):
    """Logits (batch, classes) of images (batch, channels, height, width) in [0, 1].

    Lift, stages of gradient-flow blocks, downsampling between stages, dense blocks, head. Everything before the head is
    nonexpansive by construction, and `certify` states by how much from the weights.

    Raises
    ------
    ValueError : images of another shape or dtype, empty, or with NaN or infinity.
    """

    def __init__(self, architecture: ClassifierArchitecture = ClassifierArchitecture()) -> None:  # noqa: B008 - frozen
        super().__init__()
        self.architecture = a = architecture
        self.lift = IsometricLift(a.scale)
        self.body = assembled(
            a, lambda n: self._block(Conv2d(n, n, a.kernel_size)), lambda n: self._block(Dense(n, a.dense_features))
        )
        self.head = PairwiseHead(math.prod(list(a.shapes())[-1]), a.classes)

    def _block(self, linear: WeightedMap) -> GradientFlow:
        a = self.architecture
        block = GradientFlow(linear, nn.ReLU(), tableau=a.tableau, policy=a.policy, max_iterations=1)
        _reflecting(linear, 0.99 * min(2.0, block.z_max))  # certified bounds of convolutions are 0.5 % above the norm
        return block

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """(batch, n), what the head sees of images: nonexpansive, by the certificate of `body`."""
        self._check(x)
        x = self.lift(x - 0.5)
        if torch.is_autocast_enabled(x.device.type):  # else every sum of a block would be promoted and converted back
            x = x.to(torch.get_autocast_dtype(x.device.type))
        features: Tensor = self.body(x)
        return features

    def _check(self, x: Tensor) -> None:
        a = self.architecture
        expected = (a.channels, a.height, a.width)
        if not isinstance(x, Tensor) or x.ndim != 4 or tuple(x.shape[1:]) != expected or x.shape[0] == 0:
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"images must have shape (batch, {a.channels}, {a.height}, {a.width}), as trained on, and be at least one; "
                f"got {shape}: resize or convert them first"
            )
        if x.dtype != self.head.weight.dtype:
            raise ValueError(
                f"images have dtype {x.dtype}, the weights {self.head.weight.dtype}: scale them to [0, 1] and convert with "
                f".to({self.head.weight.dtype})"
            )
        if not (self.training or torch.compiler.is_compiling() or torch.isfinite(x.sum())):
            raise ValueError("the images hold NaN or infinity")

    def pairwise_lipschitz(self) -> Tensor:
        """(classes, classes) float64: a certified Lipschitz constant of each difference of logits, from the present weights.

        Raises
        ------
        NotCertified : the network has no certificate: a subclass, an altered instance or part.
        """
        body, _ = certify(self).children
        return self.head.pairwise_lipschitz() * body.lipschitz


@torch.no_grad()
def _reflecting(linear: WeightedMap, z: float) -> None:
    """sqrt(z) times orthonormal rows (of the middle tap): near z = 2, x - A^T relu(A x) reflects what is active."""
    weight = linear.weight
    orthonormal = nn.init.orthogonal_(torch.empty(weight.shape[:2])) * math.sqrt(z)
    if weight.ndim == 2:
        weight.copy_(orthonormal)
    else:
        weight.zero_()[..., weight.shape[2] // 2, weight.shape[3] // 2] = orthonormal


@rule(Classifier)
def _certify(classifier: Classifier) -> CertificateTree:
    if type(classifier.lift) is not IsometricLift or type(classifier.architecture) is not ClassifierArchitecture:
        raise NotCertified(f"a Classifier with lift {classifier.lift!r} and {classifier.architecture!r} has no proof")
    require_unaltered(classifier.lift, NotCertified)
    trees = (certify(classifier.body), certify(classifier.head))
    total = trees[0].certificate.conjugate().then(trees[1].certificate)
    return CertificateTree("Classifier", total, "isometric lift, body, head", trees)
