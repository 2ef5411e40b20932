"""A classifier whose logits have known Lipschitz constants, also in pairs: every prediction comes with a radius.

Source: gradient-flow blocks [Sherry2024]; the radius min_j (f_y - f_j) / Lip(f_y - f_j) is docs/theorems.md, R1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet import spectral
from stablenet.blocks.gradient_flow import GradientFlow
from stablenet.certificate import Certificate, CertificateTree, NotCertified, certify, rule
from stablenet.enforcement import Policy, Rescale
from stablenet.interlayers import IsometricLift, MaxMin, NormPool2d, ZeroChannelLift
from stablenet.linear import Conv2d, Dense
from stablenet.rules import require_unaltered
from stablenet.tableaus import EULER, ButcherTableau

DOWNSAMPLINGS = ("unshuffle", "average")
Layer = Callable[[int], nn.Module]


@dataclass(frozen=True)
class ClassifierShape:
    """The shape of a `Classifier`, images and classes aside.

    Parameters
    ----------
    scale : of the pixel-unshuffle lift at the entrance (1: none).
    stages : (channels, blocks) at each resolution, which halves from stage to stage; channels never shrink.
    kernel_size : of the convolutions in the blocks, odd.
    downsampling : between stages; "unshuffle" keeps everything (four times the channels), "average" keeps the means.
    dense_features : hidden features of each dense block; dense_blocks : how many of them stand before the head.
    maxmin : MaxMin after each block.
    """

    scale: int = 2
    stages: tuple[tuple[int, int], ...] = ((16, 3), (64, 4))
    kernel_size: int = 3
    downsampling: str = "unshuffle"
    dense_features: int = 256
    dense_blocks: int = 2
    maxmin: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple((int(c), int(n)) for c, n in self.stages))


@dataclass(frozen=True)
class ClassifierArchitecture(ClassifierShape):
    """The shape of a `Classifier` for images of (channels, height, width) and `classes` classes.

    tableau, policy : of all blocks.
    """

    channels: int = 1
    height: int = 28
    width: int = 28
    classes: int = 10
    tableau: ButcherTableau = EULER
    policy: Policy = Rescale()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("channels", "height", "width", "scale", "kernel_size", "dense_features"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a positive integer, got {getattr(self, name)!r}")
        if not isinstance(self.classes, int) or self.classes < 2:
            raise ValueError(f"classes must be an integer of at least 2, got {self.classes!r}")
        if self.dense_blocks < 0:
            raise ValueError(f"dense_blocks must be >= 0, got {self.dense_blocks}")
        if self.downsampling not in DOWNSAMPLINGS:
            raise ValueError(f"downsampling must be one of {', '.join(DOWNSAMPLINGS)}, got {self.downsampling!r}")
        for _ in self.shapes():
            pass

    def shapes(self) -> Iterator[tuple[int, int, int]]:
        """(channels, height, width) in each stage.

        Raises
        ------
        ValueError : no stage, a stage whose channels are fewer than what reaches it, or an image that cannot be halved.
        """
        if not self.stages:
            raise ValueError("stages must hold at least one (channels, blocks)")
        arriving = self.channels * self.scale**2
        height, width = -(-self.height // self.scale), -(-self.width // self.scale)
        for k, (features, blocks) in enumerate(self.stages):
            if k:
                if height % 2 or width % 2:
                    raise ValueError(
                        f"stage {k} would halve {height} x {width}: choose scale and the number of stages so that every stage "
                        "but the last has even sides"
                    )
                height, width = height // 2, width // 2
                arriving *= 4 if self.downsampling == "unshuffle" else 1
            if features < arriving or blocks < 0 or (self.maxmin and features % 2):
                raise ValueError(
                    f"stage {k} has {features} channels and {blocks} blocks: {arriving} channels reach it and none may be "
                    "dropped; blocks must be >= 0, and channels even for MaxMin"
                )
            arriving = features
            yield features, height, width


class PairwiseHead(nn.Module):
    """(batch, features) -> (batch, classes): y_i = <w_i, x> / |w_i| + b_i, so that each logit is 1-Lipschitz in x.

    The difference of logits i and j has the constant |w_i/|w_i| - w_j/|w_j||, exactly.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        nn.init.orthogonal_(self.weight)
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, functional.normalize(self.weight), self.bias)

    def distances(self) -> Tensor:
        """(classes, classes): |w_i/|w_i| - w_j/|w_j||, differentiable off the diagonal, where training pushes on them."""
        rows = functional.normalize(self.weight)
        return (2 - 2 * rows @ rows.T).clamp_min(1e-6).sqrt()

    def pairwise_lipschitz(self) -> Tensor:
        """(classes, classes) float64: the constant of each difference of logits, rounded up; 0 on the diagonal.

        Computed from the rows as the forward pass uses them, rounding of the normalization included.
        """
        rows = functional.normalize(self.weight.detach()).double().cpu()
        distances = (rows[:, None] - rows[None]).norm(dim=-1)
        return distances * (1 + 1e-12)


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

    def _block(self, linear: nn.Module) -> GradientFlow:
        a = self.architecture
        block = GradientFlow(linear, nn.ReLU(), tableau=a.tableau, policy=a.policy, max_iterations=1)
        _reflecting(linear, 0.99 * min(2.0, block.z_max))  # certified bounds of convolutions are 0.5 % above the norm
        return block

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """(batch, n), what the head sees of images: nonexpansive, by the certificate of `body`."""
        self._check(x)
        x = self.lift(x - 0.5)
        if torch.is_autocast_enabled(x.device.type):  # else every sum of a block would be promoted and converted back
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return self.body(x)

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
        certify(self)
        return self.head.pairwise_lipschitz() * certify(self.body).lipschitz


@torch.no_grad()
def _reflecting(linear: nn.Module, z: float) -> None:
    """sqrt(z) times orthonormal rows (of the middle tap): near z = 2, x - A^T relu(A x) reflects what is active."""
    weight = linear.weight
    orthonormal = nn.init.orthogonal_(torch.empty(weight.shape[:2])) * math.sqrt(z)
    if weight.ndim == 2:
        weight.copy_(orthonormal)
    else:
        weight.zero_()[..., weight.shape[2] // 2, weight.shape[3] // 2] = orthonormal


@rule(PairwiseHead)
def _certify_head(head: PairwiseHead) -> CertificateTree:
    if head.bias.shape != head.weight.shape[:1]:
        raise NotCertified(f"a PairwiseHead with weight {tuple(head.weight.shape)}, bias {tuple(head.bias.shape)} has no proof")
    bound = spectral.matrix_upper_bound(functional.normalize(head.weight.detach()))
    return CertificateTree("PairwiseHead", Certificate(bound), f"rows of norm 1, spectral norm <= {bound:.6g}")


@rule(Classifier)
def _certify(classifier: Classifier) -> CertificateTree:
    if type(classifier.lift) is not IsometricLift or type(classifier.architecture) is not ClassifierArchitecture:
        raise NotCertified(f"a Classifier with lift {classifier.lift!r} and {classifier.architecture!r} has no proof")
    require_unaltered(classifier.lift, NotCertified)
    trees = (certify(classifier.body), certify(classifier.head))
    total = trees[0].certificate.conjugate().then(trees[1].certificate)
    return CertificateTree("Classifier", total, "isometric lift, body, head", trees)
