"""The norm of a block's map while it trains, followed from below by a few products a step; it certifies nothing.

Source: the tracked norm of adaptive enforcement [Sherry2024]; docs/theorems.md, E1.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from stablenet.linear.protocol import WeightedMap

COLD_ITERATIONS = 50


class FollowedNorm:
    """|A| of one map, followed: `norm` is what the last `update` found.

    tolerance, max_iterations : an update takes so many steps at most, and stops when |A| changes by less, relatively.

    Raises
    ------
    ValueError : the weight holds NaN or infinity.
    """

    def __init__(self, linear: WeightedMap, *, tolerance: float, max_iterations: int) -> None:
        self.linear, self.tolerance, self.max_iterations = linear, tolerance, max_iterations
        self.norm, self._tracker = 0.0, linear.tracker()
        self._refine(COLD_ITERATIONS)

    def update(self) -> float:
        """Follow the weight to where it is now.

        Raises
        ------
        ValueError : the weight holds NaN or infinity; the next update then starts afresh.
        """
        return self._refine(self.max_iterations)

    @torch.no_grad()
    def _refine(self, iterations: int) -> float:
        for _ in range(iterations):
            previous, self.norm = self.norm, self._tracker.step()
            if self._tracker.exact or abs(self.norm - previous) <= self.tolerance * self.norm:
                break
        if not math.isfinite(self.norm):
            self.norm, self._tracker = 0.0, self.linear.tracker()
            raise ValueError("the weights of a gradient-flow block hold NaN or infinity: restore a checkpoint")
        return self.norm

    def gain(self, weight: Tensor) -> Tensor:
        """|A v| / |v| at the followed v, differentiable: `norm` with the gradient of the norm."""
        return self._tracker.gain(weight)

    def scaled(self, factor: float) -> None:
        """The weight was multiplied by `factor`."""
        self.norm *= factor

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered: with `restore` a resumed training follows as if it had not stopped."""
        return {"norm": torch.tensor(self.norm, dtype=torch.float64), **self._tracker.state}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take what `tensors` gave."""
        self.norm = float(tensors["norm"])
        self._tracker.state = {name: value for name, value in tensors.items() if name != "norm"}


@runtime_checkable
class Followable(Protocol):
    """A block whose norm can be followed."""

    def follow(self) -> FollowedNorm: ...


class Following:
    """What follows the norms of a model while it trains: one `FollowedNorm` a block, begun afresh; training owns it."""

    def __init__(self, model: nn.Module) -> None:
        blocks = ((name, module) for name, module in model.named_modules() if isinstance(module, Followable))
        self.norms = {name: module.follow() for name, module in blocks}

    def tensors(self) -> dict[str, Tensor]:
        """The state of all, by "block/entry"."""
        return {f"{name}/{key}": value for name, norm in self.norms.items() for key, value in norm.tensors().items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take what `tensors` gave for a model of the same blocks."""
        for name, norm in self.norms.items():
            norm.restore({key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}/")})
