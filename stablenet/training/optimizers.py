"""Optimizers by name: Adam, and momentum whose steps on the linear maps are orthogonalized.

Source: orthogonalized momentum is Muon [Jordan2024]. A map that is held on a sphere of its spectral norm loses rank under
Adam, whose steps are nearly of rank one and push down every other singular value; an orthogonalized step moves all
singular values alike (measured in docs/classifier-design.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalized(matrix: Tensor, *, half: bool = False) -> Tensor:
    """Nearly U V^T for `matrix` = U S V^T, axes after the first taken as one: singular values become 0.7 to 1.2.

    half : Newton-Schulz iterations in bfloat16, three times faster; a direction of descent needs no more, but they magnify
    rounding to about 1 %.
    """
    x = matrix.flatten(1).bfloat16() if half else matrix.flatten(1)
    transposed = x.shape[0] > x.shape[1]
    x = x.T if transposed else x
    x = x / x.norm().clamp_min(1e-12)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if transposed else x).reshape(matrix.shape).to(matrix.dtype)


def evened(matrix: Tensor, share: float, *, half: bool = False) -> Tensor:
    """W + share/2 (W - W W^T W / s^2), s^2 the mean square of the singular values: those above s fall, those below rise.

    One step toward equal singular values (axes after the first taken as one) that keeps their directions and, to first order
    around equal ones, their scale.
    """
    flat = matrix.flatten(1)
    transposed = flat.shape[0] > flat.shape[1]
    flat = flat.T if transposed else flat
    x = flat.bfloat16() if half else flat
    cubed = ((x @ x.T) @ x).to(matrix.dtype)
    moved = flat + share / 2 * (flat - cubed / (flat.square().sum() / len(flat)).clamp_min(1e-30))
    return (moved.T if transposed else moved).reshape(matrix.shape)


Groups = list[dict[str, Any]]
"""Of parameters with their settings, as torch's optimizers take them."""


class OrthogonalizedMomentum(torch.optim.Adam):
    """Nesterov momentum with `orthogonalized` steps in groups that say `orthogonal=True`, Adam in the others.

    The learning rate of such a group is the spectral norm of a step (axes after the first taken as one). evenness : the share
    of `evened` after each step, so that a map keeps its rank where its gradient has none.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        betas: tuple[float, float],
        momentum: float = 0.95,
        half: bool = False,
        evenness: float = 0.0,
    ) -> None:
        self.momentum, self.half, self.evenness = momentum, half, evenness
        super().__init__(groups, lr=lr, betas=betas)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override] # torch overloads it
        for group in self.param_groups:
            for weight in group["params"] if group.get("orthogonal") else ():
                if weight.grad is not None:
                    self._move(weight, group["lr"])
        return super().step(closure)

    def _move(self, weight: Tensor, rate: float) -> None:
        state = self.state[weight]
        if not state:
            state["step"], state["momentum"] = torch.zeros(()), torch.zeros_like(weight)
        state["step"] += 1
        state["momentum"].mul_(self.momentum).add_(weight.grad)
        direction = weight.grad + self.momentum * state["momentum"]
        weight.sub_(orthogonalized(direction, half=self.half), alpha=rate)
        if self.evenness:
            weight.copy_(evened(weight, self.evenness, half=self.half))
        weight.grad = None  # so that Adam passes it by


OPTIMIZERS = ("adam", "orthogonalized")
BETAS = (0.9, 0.99)


def build(
    name: str, groups: list[dict[str, Any]], rate: float, *, half: bool = False, evenness: float = 0.0
) -> torch.optim.Optimizer:
    """The optimizer of that name, one of OPTIMIZERS."""
    if name == "adam":
        return torch.optim.Adam(groups, lr=rate, betas=BETAS)
    return OrthogonalizedMomentum(groups, lr=rate, betas=BETAS, half=half, evenness=evenness)
