"""The penalty of a convex program: a weight times the sum of the lengths of its groups, and a bound of that sum if one is set.

Source: the group lasso of [PilanciErgen2020]; its proximal map shortens each group [YuanLin2006], and under a bound by more:
the projection of the lengths onto a simplex [Duchi2008].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GroupNorm:
    """weight sum_g |v_g|, infinite where sum_g |v_g| > most.

    Parameters
    ----------
    weight : beta > 0.
    most : a bound of the sum, hence of the network's Lipschitz constant; None for no bound.

    Raises
    ------
    ValueError : a weight or a bound that is not positive and finite.
    """

    weight: float
    most: float | None = None

    def __post_init__(self) -> None:
        if not (self.weight > 0 and math.isfinite(self.weight)):
            raise ValueError(f"the penalty needs a finite beta > 0, got {self.weight}")
        if self.most is not None and not (self.most > 0 and math.isfinite(self.most)):
            raise ValueError(
                f"a bound of the Lipschitz constant must be finite and positive, got {self.most}: only f = 0 has 0"
            )

    def value(self, lengths: Tensor) -> Tensor:
        """Of groups with these lengths, the bound taken with a relative 1e-9; without a shape."""
        total = lengths.sum()
        if self.most is not None and float(total) > self.most * (1 + 1e-9):
            return total.new_tensor(math.inf)
        return self.weight * total

    def threshold(self, lengths: Tensor, step: float) -> float:
        """t with prox: |v_g| to max(|v_g| - t, 0), of the penalty times step > 0."""
        least = step * self.weight
        left = (lengths - least).clamp_min(0)
        if self.most is None or float(left.sum()) <= self.most:
            return least
        descending = torch.sort(left.flatten(), descending=True).values
        levels = (descending.cumsum(0) - self.most) / torch.arange(1, len(descending) + 1, device=left.device)
        return least + float(levels[int((descending > levels).sum()) - 1])

    def is_bound(self, lengths: Tensor, step: float) -> bool:
        """Whether the bound raises the threshold."""
        return self.most is not None and float((lengths - step * self.weight).clamp_min(0).sum()) > self.most

    def conjugate(self, polar: float) -> float:
        """sup <u, v> - penalty(v) over v, for u whose longest group is polar."""
        if polar <= self.weight:
            return 0.0
        return math.inf if self.most is None else self.most * (polar - self.weight)
