"""Random instances of every datafit, drawn by a seed."""

from __future__ import annotations

import torch
from torch import Tensor

from stablenet.convex import Datafit, GroupNorm, Hinge, Logistic, Program, Squared, SquaredHinge, gates

DATAFITS: dict[str, Datafit] = {
    "squared": Squared(),
    "mean": Squared(1 / 12),
    "logistic": Logistic(),
    "squared-hinge": SquaredHinge(),
    "hinge": Hinge(),
}


def data(seed: int, n: int = 12, d: int = 3, outputs: int = 1) -> tuple[Tensor, Tensor]:
    """X (n, d) and y (n, outputs)."""
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(n, d, generator=g, dtype=torch.float64)
    return X, torch.randn(n, outputs, generator=g, dtype=torch.float64)


def instance(
    datafit: Datafit, *, seed: int = 0, n: int = 12, d: int = 3, outputs: int = 1, relu: bool, weight: float = 0.2
) -> Program:
    """With sixteen sampled gates."""
    X, y = data(seed, n, d, outputs)
    y = y.sign() if datafit.labels else y
    sampled = gates.sample(X, 16, generator=torch.Generator().manual_seed(seed + 1))
    return Program(X, y, sampled, datafit, GroupNorm(weight * datafit.weight), cones=relu)
