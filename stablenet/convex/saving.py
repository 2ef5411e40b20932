"""The kind of card of a convex network, so that it is saved, loaded and certified anew like the others.

Source: docs/theorems.md, C7: what a card says is built again, and the numbers come from the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stablenet.cards import kind
from stablenet.convex.networks import ConvexNetwork


@dataclass(frozen=True)
class Shape:
    """Of a `ConvexNetwork`.

    Parameters
    ----------
    inner : neurons of a unit's first layer; 0 for two layers.
    """

    inputs: int
    units: int
    inner: int
    outputs: int
    bias: bool

    def __post_init__(self) -> None:
        if min(self.inputs, self.outputs) < 1 or min(self.units, self.inner) < 0:
            raise ValueError("a convex network has at least one input and one output")


def shape(network: ConvexNetwork) -> Shape:
    """That of a network."""
    units, inner, inputs = network.hidden.shape
    return Shape(inputs, units, 0 if network.inner is None else inner, len(network.output), network.bias is not None)


def zeros(shape: Shape) -> ConvexNetwork:
    """A network of that shape."""
    inner = shape.inner or 1
    units = torch.zeros(shape.units, inner)
    return ConvexNetwork(
        torch.zeros(shape.units, inner, shape.inputs),
        units if shape.inner else None,
        torch.zeros(shape.outputs, shape.units),
        bias=units if shape.bias else None,
    )


kind("convex network", Shape, describe=shape, build=zeros)(ConvexNetwork)
