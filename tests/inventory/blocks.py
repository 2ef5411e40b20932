"""Blocks of every tableau, activation and map, in the random and in the linear regime."""

from __future__ import annotations

import torch
from torch import nn

from stablenet import tableaus
from stablenet.blocks import GradientFlow
from stablenet.enforcement import Step
from tests.inventory.maps import ACTIVATIONS, MAPS


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
            active = {"relu": 40.0, "leaky": 40.0, "elu": -3e-3, "softplus": 40.0, "softplus-torch": 40.0, "leaky-steep": -40.0}
            flow.bias.fill_(active.get(activation, 0.0))
            for parameter in flow.activation.parameters():
                parameter.fill_(30.0)
    return flow.double().eval()
