"""Every activation and every linear map of a block, with the shape of an input."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from stablenet.activations import Clamp, LinearSpline, Softplus
from stablenet.linear import Conv1d, Conv2d, Conv3d, Dense, PolyphaseConv2d

ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda channels: nn.ReLU(),
    "leaky": lambda channels: nn.LeakyReLU(0.2),
    "leaky-steep": lambda channels: nn.LeakyReLU(1.7),
    "elu": lambda channels: nn.ELU(1.3),
    "softplus": lambda channels: Softplus(beta=2.0),
    "softplus-torch": lambda channels: nn.Softplus(beta=2.0, threshold=40.0),
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
