"""A network of standardized data as one of the data as they are: scales and means go into its weights.

Source: (x - c)/s and t z + o are affine, so that they are absorbed; o is a neuron without slope (docs/theorems.md, X3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from stablenet.convex.networks import ConvexNetwork


def unscaled(
    network: ConvexNetwork, *, center: Tensor, deviation: Tensor, offset: Tensor | None = None, factor: Tensor | None = None
) -> ConvexNetwork:
    """x to factor f((x - center)/deviation) + offset, f the network.

    Parameters
    ----------
    center, deviation : (d,) of the inputs, deviation > 0.
    offset, factor : (outputs,), of the outputs; None for 0 and 1.

    Raises
    ------
    ValueError : a deviation that is not positive.
    """
    if not bool((deviation > 0).all()):
        raise ValueError(f"deviations must be positive, got {float(deviation.min())}: give constant features the deviation 1")
    old = network.hidden.detach()
    hidden = old / deviation
    bias = -(hidden @ center) if network.bias is None else network.bias.detach() - hidden @ center
    inner = None if network.inner is None else network.inner.detach()
    output = network.output.detach()
    if factor is not None:
        output = output * factor[:, None]
    if offset is not None and bool(offset.any()):
        constant = torch.zeros_like(hidden[:1]) if len(hidden) else hidden.new_zeros(1, *hidden.shape[1:])
        first = hidden.new_zeros(1, hidden.shape[1])
        first[0, 0] = 1.0
        hidden, bias = torch.cat([hidden, constant]), torch.cat([bias, first])
        inner = None if inner is None else torch.cat([inner, first])
        output = torch.cat([output, offset[:, None]], 1)
    return ConvexNetwork(hidden, inner, output, bias=bias)
