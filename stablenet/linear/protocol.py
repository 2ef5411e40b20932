"""What a linear map of a block is: it answers for its kernel, its adjoint, its strips and for how its norm is followed.

Source: adjoints are transposed convolutions (docs/theorems.md, N3); the norm bounds are `stablenet.spectral`. Maps without a
weight, frames and rotations, answer for D D^T = I.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from stablenet.certificate import NotCertified
from stablenet.rules import Rules


class LinearMap(Protocol):
    """x -> A x and its exact adjoint."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def adjoint(self, y: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """A^T y; `size` is the spatial size of the input of A where y does not tell it."""
        ...


@dataclass(frozen=True)
class Strips:
    """A convolution of images with stride 1, `taps` rows and `padding` zeros on each side: it can run by strips of rows."""

    taps: int
    padding: int


class Tracker(Protocol):
    """One way to follow |A| from below while a weight moves; `state` is all that it remembers."""

    exact: bool
    """Whether one step says all: nothing is followed."""
    state: dict[str, Tensor]

    def step(self) -> float:
        """Measure |A| of the present weight, and improve what the next step starts from."""
        ...

    def gain(self, weight: Tensor) -> Tensor:
        """|A v| / |v| at the present v, differentiable in the weight."""
        ...


class WeightedMap(Protocol):
    """A `LinearMap` that depends on one weight, linearly.

    weight : what learns; the norm bound is a function of it.
    outputs : how many values a block keeps for A x: a bias, a scale, an activation's parameters.
    example_shape : of an input, batch excluded, on which the norm can be tracked.
    strips : how it runs by strips of rows, or None.
    """

    weight: nn.Parameter
    outputs: int

    @property
    def example_shape(self) -> tuple[int, ...]: ...

    @property
    def strips(self) -> Strips | None: ...

    def kernel(self, weight: Tensor) -> Tensor:
        """What `forward` and `adjoint` apply for a weight."""
        ...

    def expand(self, values: Tensor) -> Tensor:
        """Values (..., outputs) as the channels of A x want them."""
        ...

    def __call__(self, x: Tensor, kernel: Tensor | None = None, bias: Tensor | None = None) -> Tensor: ...

    def adjoint(self, y: Tensor, size: Sequence[int] | None = None, kernel: Tensor | None = None) -> Tensor: ...

    def tracker(self) -> Tracker:
        """A fresh way to follow the norm; `stablenet.linear.tracking` has one for every map."""
        ...


block_map: Rules[WeightedMap] = Rules(
    "map of a block",
    NotCertified,
    "known are {known}; @stablenet.linear.block_map({name}) says that another has an exact adjoint",
)
"""Maps whose `adjoint` is the transpose of their `forward`, by exact class; a rule gives the module back, or refuses it."""


class Frame(Protocol):
    """D, a map without weights from `size` to `dimension` features, size >= dimension, with D D^T = I (a Parseval frame).

    axis : where the features lie, -1 for vectors (..., features), 1 for images (batch, features, height, width).
    """

    dimension: int
    size: int
    axis: int

    @property
    def coherence(self) -> float:
        """The largest |cosine| of two columns."""
        ...

    def __call__(self, y: Tensor) -> Tensor:
        """D y."""
        ...

    def adjoint(self, u: Tensor) -> Tensor:
        """D^T u."""
        ...

    def complement(self, y: Tensor) -> Tensor:
        """(I - D^T D) y."""
        ...

    def dense(self) -> Tensor:
        """D as a matrix (dimension, size)."""
        ...


class Rotation(Protocol):
    """R with R^T R = R R^T = I over the axis of its `dimension` features, fixed or learned."""

    dimension: int
    axis: int

    def __call__(self, x: Tensor) -> Tensor: ...

    def adjoint(self, u: Tensor) -> Tensor:
        """R^T u."""
        ...


parseval: Rules[float] = Rules(
    "proof of D D^T = I",
    NotCertified,
    "known are {known}; @stablenet.linear.parseval({name}) says how far D D^T is from I, and that its other methods are right",
)
"""An upper bound of |D D^T - I| of frames and rotations by exact class: 0 by construction, measured for a matrix as given."""


def require_positive(**values: int) -> None:
    """Raise ValueError for whatever is not a positive integer."""
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}")


def in_double(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """A frozen copy in float64: what `spectral.lower_bound` iterates."""
    return copy.deepcopy(module).double().requires_grad_(False)
