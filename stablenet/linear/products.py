"""Products with matrices that are not stored: their numbers in any precision, their derivative, what they may be given.

Source: the derivative of x -> A x is A, and of its adjoint A^T (docs/theorems.md, N3): nothing is kept for the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


class Table:
    """Numbers that do not learn, kept as they are and given in the precision and on the device of whoever asks."""

    def __init__(self, exact: Tensor) -> None:
        self.exact = exact
        self._ready: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def like(self, y: Tensor) -> Tensor:
        """The numbers as y has them: its dtype and device."""
        return self._at(y.dtype, y.device)

    def on(self, device: torch.device) -> Tensor:
        """The numbers on a device, in their own dtype: indices."""
        return self._at(self.exact.dtype, device)

    def current(self) -> Tensor:
        """The numbers as they are now; what was derived from them before is forgotten."""
        self._ready.clear()
        return self.exact

    def _at(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        found = self._ready.get((dtype, device))
        if found is None:
            with torch.inference_mode(False):  # kept, and used in training too
                found = self.exact.to(device=device, dtype=dtype)
            if type(found) is Tensor:  # a tracer's tensor is not kept
                self._ready[dtype, device] = found
        return found


def through(product: Product, transpose: Product, y: Tensor) -> Tensor:
    """product(y), a linear map, differentiated by its transpose; derivatives of any order, nothing is saved."""
    if torch.is_grad_enabled() and y.requires_grad:
        return _Through.apply(product, transpose, y)
    return product(y)


class _Through(torch.autograd.Function):
    """A linear map and its transpose, each the derivative of the other's transpose."""

    generate_vmap_rule = True

    @staticmethod
    def forward(product: Product, transpose: Product, y: Tensor) -> Tensor:
        return product(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Product, Product, Tensor], output: Tensor) -> None:
        ctx.product, ctx.transpose, _ = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, through(ctx.transpose, ctx.product, gradient)

    @staticmethod
    def jvp(ctx: Any, _product: None, _transpose: None, tangent: Tensor) -> Tensor:
        found: Tensor = ctx.product(tangent)
        return found


def in_single(y: Tensor) -> Tensor:
    """y, in float32 where it has half precision: Fourier transforms have no other."""
    return y.float() if y.dtype in (torch.bfloat16, torch.float16) else y


def require_features(name: str, y: Tensor, size: int, axis: int = -1) -> Tensor:
    """y, if it is real and has `size` features along the axis.

    Raises
    ------
    ValueError : complex or integer numbers, or another size.
    """
    if not y.dtype.is_floating_point:
        raise ValueError(
            f"{name} takes real floating-point numbers, got {y.dtype}: convert them, or stack real and imaginary parts"
        )
    if not -y.ndim <= axis < y.ndim or y.shape[axis] != size:
        raise ValueError(f"{name} takes {size} features along axis {axis}, got shape {tuple(y.shape)}")
    return y
