"""Perturbed gradient flow of two layers: now and then the weakest neurons are drawn anew.

Source: the noise of the perturbed Wasserstein gradient flow of [Wei2019], section 3.2, which finds the global minimum of a wide
network; here a share of the neurons at a time. Statement: docs/theorems.md, M7.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Perturbation:
    """When and how neurons are drawn anew.

    every : steps between two perturbations.
    share : of the neurons, those with the least |w||u|, rounded up to whole ones; in (0, 1].
    radius : of the sphere on which (w, u) is uniform afterwards.

    Raises
    ------
    ValueError : a number out of range.
    """

    every: int = 50
    share: float = 0.02
    radius: float = 0.1

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 < self.share <= 1 or not 0 < self.radius < math.inf:
            raise ValueError(
                "every must be at least 1, share in (0, 1] and radius positive, got "
                f"{self.every}, {self.share} and {self.radius}"
            )


class Perturbed:
    """An optimizer that draws the weakest neurons anew after each so many steps; otherwise it is the one that it wraps.

    Neuron j of sum_j u_j max(w_j.x, 0) is row j of `inner.weight` (with its bias, if any) and column j of `outer.weight`. The
    others are left as they are, bit for bit; the optimizer's memory of the new ones (in tensors of a parameter's shape) is 0.

    Parameters
    ----------
    optimizer : of torch; `param_groups` are its own, so its rates can be scheduled.
    inner, outer : the layers before and behind the ReLU.
    generator : of the draws, on the processor.

    Raises
    ------
    ValueError : layers that do not fit together.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        inner: nn.Linear,
        outer: nn.Linear,
        *,
        generator: torch.Generator,
        perturbation: Perturbation = Perturbation(),  # noqa: B008 - frozen
    ) -> None:
        if inner.out_features != outer.in_features:
            raise ValueError(f"{inner.out_features} neurons do not fit a layer of {outer.in_features} inputs")
        self.optimizer, self.inner, self.outer = optimizer, inner, outer
        self.generator, self.perturbation, self.steps = generator, perturbation, 0

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of the optimizer inside."""
        return self.optimizer.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the optimizer inside."""
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """A step of the optimizer inside, then, if it is time, a perturbation."""
        loss = self.optimizer.step(closure) if closure else self.optimizer.step()
        self.steps += 1
        if self.steps % self.perturbation.every == 0:
            self.perturb()
        return loss

    @torch.no_grad()
    def perturb(self) -> Tensor:
        """Draw the weakest neurons anew and return their indices; f(x) moves by at most |x| sum (|w_j||u_j| + radius^2/2)."""
        rows, columns = self._rows(), self.outer.weight
        strength = rows.norm(dim=1) * columns.norm(dim=0)
        count = math.ceil(self.perturbation.share * len(strength) - 1e-9)
        weakest = strength.argsort(stable=True)[:count]
        drawn = torch.randn((count, rows.shape[1] + columns.shape[0]), generator=self.generator, dtype=torch.float64)
        drawn = (self.perturbation.radius * drawn / drawn.norm(dim=1, keepdim=True)).to(rows)
        inputs = self.inner.in_features
        self.inner.weight[weakest] = drawn[:, :inputs]
        if self.inner.bias is not None:
            self.inner.bias[weakest] = drawn[:, inputs]
        columns[:, weakest] = drawn[:, rows.shape[1] :].T
        for parameter, index in ((self.inner.weight, 0), (self.inner.bias, 0), (columns, 1)):
            for memory in self.optimizer.state.get(parameter, {}).values() if parameter is not None else ():
                if isinstance(memory, Tensor) and memory.shape == parameter.shape:
                    memory.index_fill_(index, weakest, 0)
        return weakest

    def _rows(self) -> Tensor:
        """(neurons, inputs), with the biases as a last column."""
        if self.inner.bias is None:
            return self.inner.weight
        return torch.cat([self.inner.weight, self.inner.bias[:, None]], 1)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state, the number of steps and the generator's state: a run goes on as if it had not stopped."""
        inside = copy.deepcopy(self.optimizer.state_dict())
        return {"optimizer": inside, "steps": self.steps, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
        self.generator.set_state(state["generator"])
