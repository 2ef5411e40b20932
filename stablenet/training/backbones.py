"""Small networks without a constraint, to compare with and to put blocks into: each a Sequential with named places.

Source: a multilayer perceptron and two strided convolutions, as in any textbook.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

Shape = tuple[int, int, int]
HIDDEN = 128
CHANNELS = 16


@dataclass(frozen=True)
class Backbone:
    """How to build a network, and the layers behind which a block may stand, each with the features that it gives.

    build : of (channels, height, width) and a number of classes.
    features : at "hidden".
    places : names of layers; at "input" it is the image that a block meets.
    """

    build: Callable[[Shape, int], nn.Sequential]
    features: int
    places: Mapping[str, str] = field(default_factory=dict)


def perceptron(shape: Shape, classes: int, *, hidden: int = HIDDEN) -> nn.Sequential:
    """Images (batch, *shape) to logits through `hidden` features."""
    first, last = nn.Linear(math.prod(shape), hidden), nn.Linear(hidden, classes)
    return nn.Sequential(nn.Identity(), nn.Flatten(), first, nn.ReLU(), last)


def convolutional(shape: Shape, classes: int, *, channels: int = CHANNELS) -> nn.Sequential:
    """Images (batch, *shape) to logits through two convolutions of stride 2, of `channels` and twice as many channels."""
    first = nn.Conv2d(shape[0], channels, 3, stride=2, padding=1)
    second = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
    pixels = math.prod(math.ceil(side / 4) for side in shape[1:])
    last = nn.Linear(2 * channels * pixels, classes)
    return nn.Sequential(nn.Identity(), first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), last)


BACKBONES: dict[str, Backbone] = {
    "mlp": Backbone(perceptron, HIDDEN, {"input": "0", "hidden": "2"}),
    "cnn": Backbone(convolutional, CHANNELS, {"input": "0", "hidden": "1"}),
}
