"""What a linear map of a block is: an exact adjoint, and the settings that its weight has to fit.

Source: adjoints are transposed convolutions (docs/theorems.md, N3); the norm bounds are `stablenet.spectral`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor, nn


def require_positive(**values: int) -> None:
    """Raise ValueError for whatever is not a positive integer."""
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}")


def in_double(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """A frozen copy in float64: what `spectral.lower_bound` iterates."""
    return copy.deepcopy(module).double().requires_grad_(False)
