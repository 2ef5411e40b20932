"""Ways to follow the norm of a map from below while its weight moves; they certify nothing.

Source: warm power iterations [Sherry2024]; a convolution's norm is the peak of its symbol (docs/theorems.md, N1, E1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stablenet.linear.protocol import Tracker, WeightedMap
from stablenet.spectral import symbols

PEAK_INPUTS = 4
"""Up to so many inputs the peak of the symbol is searched afresh each time."""


class Peak:
    """For a stride-1 convolution of few inputs: the plane wave that it amplifies most, found anew, so that it never lags."""

    exact = True

    def __init__(self, linear: WeightedMap) -> None:
        self._linear = linear
        self.state: dict[str, Tensor] = {}

    def step(self) -> float:
        weight = self._linear.weight.detach()
        self.state = {"wave": symbols.peak(weight)}
        return float(self.gain(weight))

    def gain(self, weight: Tensor) -> Tensor:
        return symbols.gain(weight, self.state["wave"].to(weight))


class Frequencies:
    """For a stride-1 convolution of many inputs: one step of the power iteration at each frequency of a grid."""

    exact = False

    def __init__(self, linear: WeightedMap) -> None:
        self._linear = linear
        self.state = {"directions": symbols.start(linear.weight, torch.Generator().manual_seed(0))}

    def step(self) -> float:
        weight = self._linear.weight.detach()
        norm, wave, directions = symbols.follow(weight, self.state["directions"].to(weight))
        self.state = {"directions": directions, "wave": wave}
        return norm

    def gain(self, weight: Tensor) -> Tensor:
        return symbols.gain(weight, self.state["wave"].to(weight))


class Power:
    """For any map: the power iteration on A^T A at inputs of `example_shape`."""

    exact = False

    def __init__(self, linear: WeightedMap) -> None:
        self._linear = linear
        start = torch.randn((1, *linear.example_shape), generator=torch.Generator().manual_seed(0))
        self.state = {"vector": start / start.norm()}

    def step(self) -> float:
        weight = self._linear.weight.detach()
        vector, kernel = self.state["vector"].to(weight), self._linear.kernel(weight)
        image = self._linear(vector, kernel)
        back = self._linear.adjoint(image, vector.shape[2:], kernel)
        size = float(back.norm())
        if size > 0 and math.isfinite(size):
            self.state = {"vector": back / size}
        return float(image.norm())

    def gain(self, weight: Tensor) -> Tensor:
        image = self._linear(self.state["vector"].to(weight), self._linear.kernel(weight))
        norm: Tensor = torch.linalg.vector_norm(image)
        return norm


def symbol_tracker(linear: WeightedMap) -> Tracker:
    """For a convolution whose norm is that of the symbol of its `weight` (outputs, inputs, height, width)."""
    return (Peak if linear.weight.shape[1] <= PEAK_INPUTS else Frequencies)(linear)
