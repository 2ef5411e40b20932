"""Everything that carries a proof: a new tableau, activation, map or network is one line here, tried under every theorem."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from stablenet import tableaus
from stablenet.activations import Clamp, LinearSpline
from stablenet.blocks import GradientFlow
from stablenet.enforcement import Step, Substeps
from stablenet.linear import Conv1d, Conv2d, Conv3d, Dense, PolyphaseConv2d
from stablenet.networks import Classifier, ClassifierArchitecture, Denoiser, DenoiserArchitecture

RADII = {
    tableaus.EULER: 1.0,
    tableaus.HEUN: 1.0,
    tableaus.MIDPOINT: 0.0,
    tableaus.RALSTON2: (math.sqrt(21) - 3) / 2,
    tableaus.SSPRK3: 1.0,
    tableaus.KUTTA3: 0.5,
    tableaus.HEUN3: 0.0,
    tableaus.RALSTON3: 4 / (2 + math.sqrt(6)),
    tableaus.RK4: 1.0,
    tableaus.RK38: 2 * math.sqrt(3) - 3,
    tableaus.SSPRK43: 2.0,
    tableaus.DORMAND_PRINCE: 0.0,
    tableaus.euler_substeps(3): 3.0,
    tableaus.ssprk2(3): 2.0,
    tableaus.ssprk2(5): 4.0,
}
CONTRACTIVE = [tableau for tableau, radius in RADII.items() if radius > 0]

ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda channels: nn.ReLU(),
    "leaky": lambda channels: nn.LeakyReLU(0.2),
    "leaky-steep": lambda channels: nn.LeakyReLU(1.7),
    "elu": lambda channels: nn.ELU(1.3),
    "softplus": lambda channels: nn.Softplus(beta=2.0),
    "tanh": lambda channels: nn.Tanh(),
    "sigmoid": lambda channels: nn.Sigmoid(),
    "hardtanh": lambda channels: nn.Hardtanh(-0.5, 2.0),
    "clamp": lambda channels: Clamp(channels, threshold=0.5),
    "spline": lambda channels: LinearSpline(channels, segments=4),
}

MAPS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense": (lambda: Dense(6, 9), (6,)),
    "conv1d": (lambda: Conv1d(2, 3, 5), (2, 19)),
    "conv1d-circular": (lambda: Conv1d(2, 3, 3, padding_mode="circular"), (2, 15)),
    "conv2d": (lambda: Conv2d(2, 3, 3), (2, 11, 10)),
    "conv2d-circular": (lambda: Conv2d(2, 3, 3, padding_mode="circular"), (2, 9, 12)),
    "conv2d-strided": (lambda: Conv2d(2, 5, 3, stride=2), (2, 11, 10)),
    "conv2d-strided-circular": (lambda: Conv2d(1, 4, 3, stride=2, padding_mode="circular"), (1, 9, 11)),
    "conv2d-grouped": (lambda: Conv2d(4, 6, 3, groups=2), (4, 9, 8)),
    "conv2d-dilated": (lambda: Conv2d(2, 3, 3, dilation=2), (2, 12, 11)),
    "conv2d-dilated-strided": (lambda: Conv2d(1, 2, 3, dilation=2, stride=2), (1, 13, 12)),
    "conv3d": (lambda: Conv3d(1, 3, 3), (1, 6, 5, 7)),
    "polyphase": (lambda: PolyphaseConv2d(1, 3, 3), (4, 6, 7)),
    "polyphase-7": (lambda: PolyphaseConv2d(1, 2, 7), (4, 7, 6)),
}

ARCHITECTURES = {
    "anchored": DenoiserArchitecture(features=6, kernel_size=3, blocks=3, averagedness=0.5),
    "composed": DenoiserArchitecture(features=6, kernel_size=3, blocks=3, averagedness=0.5, anchored=False),
    "deep-anchored": DenoiserArchitecture(features=4, kernel_size=7, blocks=6, averagedness=0.8),
    "color": DenoiserArchitecture(channels=3, features=6, kernel_size=3, blocks=2, averagedness=0.5),
    "full-resolution": DenoiserArchitecture(features=6, kernel_size=5, blocks=2, scale=1, extra_channels=2, averagedness=0.5),
    "step-heun": DenoiserArchitecture(
        features=6, kernel_size=3, blocks=2, averagedness=0.5, anchored=False, tableau=tableaus.HEUN, policy=Step()
    ),
}

CLASSIFIERS = {
    "average": ClassifierArchitecture(
        height=8, width=8, stages=((4, 1), (6, 1)), downsampling="average", maxmin=True, dense_features=8, classes=4
    ),
    "unshuffle": ClassifierArchitecture(
        channels=3, height=7, width=9, stages=((12, 1),), dense_features=6, dense_blocks=1, maxmin=True, classes=3
    ),
    "heun-substeps": ClassifierArchitecture(
        height=8,
        width=8,
        stages=((4, 1), (16, 1)),
        maxmin=True,
        tableau=tableaus.HEUN,
        policy=Substeps(),
        classes=3,
    ),
    "no-maxmin": ClassifierArchitecture(height=6, width=6, scale=1, stages=((3, 2),), dense_blocks=0, maxmin=False, classes=2),
}


def block(
    tableau: tableaus.ButcherTableau = tableaus.EULER,
    activation: str = "relu",
    linear: str = "dense",
    *,
    fraction: float = 0.999,
    regime: str = "random",
    seed: int = 0,
) -> GradientFlow:
    """A float64 block in evaluation mode with z = `fraction` of 2 r.

    regime "linear" drives every activation to its steepest slope on small inputs; "random" draws biases and parameters.
    """
    torch.manual_seed(seed)
    map_ = MAPS[linear][0]()
    channels = map_.weight.shape[0]
    flow = GradientFlow(map_, ACTIVATIONS[activation](channels), tableau=tableau, time=1e6, policy=Step(), fraction=fraction)
    with torch.no_grad():
        nn.init.normal_(map_.weight)
        nn.init.normal_(flow.bias, std=0.5)
        if regime == "linear":
            active = {"relu": 40.0, "leaky": 40.0, "elu": -3e-3, "softplus": 40.0, "leaky-steep": -40.0}
            flow.bias.fill_(active.get(activation, 0.0))
            for parameter in flow.activation.parameters():
                parameter.fill_(30.0)
    return flow.double().eval()


def wild_denoiser(architecture: DenoiserArchitecture, seed: int = 0) -> Denoiser:
    """A float64 denoiser whose weights are far from their initial values, in evaluation mode."""
    torch.manual_seed(seed)
    network = Denoiser(architecture)
    with torch.no_grad():
        for flow in network.blocks:
            flow.linear.weight.add_(torch.randn_like(flow.linear.weight))
            flow.activation.logits.add_(3 * torch.randn_like(flow.activation.logits))
        network.log_scales.add_(torch.randn_like(network.log_scales))
        if network.anchors is not None:
            network.anchors.add_(3 * torch.randn_like(network.anchors) - 2)
    return network.double().eval()


def wild_classifier(architecture: ClassifierArchitecture, seed: int = 0) -> Classifier:
    """A float64 classifier whose weights are far from their initial values, in evaluation mode."""
    torch.manual_seed(seed)
    network = Classifier(architecture)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return network.double().eval()
