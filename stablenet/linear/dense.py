"""A dense linear map with its adjoint and norm bound.

Source: docs/theorems.md, N2 and N3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet import spectral
from stablenet.linear.protocol import Tracker, block_map, in_double, require_positive
from stablenet.linear.tracking import Power
from stablenet.spectral.bounds import linear_function
from stablenet.spectral.layers import require_shape
from stablenet.spectral.power import LinearFunction


class Dense(nn.Module):
    """x -> x W^T, (batch, inputs) to (batch, outputs), without bias (a block adds its own)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        require_positive(inputs=inputs, outputs=outputs)
        self.inputs, self.outputs = inputs, outputs
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.orthogonal_(self.weight)

    def forward(self, x: Tensor, kernel: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        return functional.linear(x, self.weight if kernel is None else kernel, bias)

    def adjoint(self, y: Tensor, size: Sequence[int] | None = None, kernel: Tensor | None = None) -> Tensor:
        return functional.linear(y, (self.weight if kernel is None else kernel).T)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of an input, batch excluded, on which the norm is tracked in training."""
        return (self.inputs,)

    @property
    def strips(self) -> None:
        return None

    def kernel(self, weight: Tensor) -> Tensor:
        return weight

    def expand(self, values: Tensor) -> Tensor:
        return values

    def tracker(self) -> Tracker:
        return Power(self)


@block_map(Dense)
def _map(module: Dense) -> Dense:
    return module


@spectral.bound(Dense)
def _bound(module: Dense) -> float:
    require_shape(module, module.weight, (module.outputs, module.inputs))
    return spectral.matrix_upper_bound(module.weight)


@linear_function(Dense)
def _function(module: Dense) -> tuple[LinearFunction, tuple[int, ...]]:
    return in_double(module), module.example_shape
