"""A certified smoothness of f(x) = 1/2 |Ax - y|^2, that is a bound of |A|^2, by one rule per exact physics class.

Source: docs/theorems.md, F1 to F4. deepinv's own `compute_sqnorm` is a power iteration, which is a lower bound: it is
never used here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor, nn

from pnp.bounds import Refused
from pnp.physics.alterations import REMEDY
from stablenet.rules import Rules


@dataclass(frozen=True)
class Smoothness:
    """What is proved of the spectrum of A^T A, and whether the physics has a formula for the proximal operator.

    Parameters
    ----------
    bound : >= |A|^2.
    reason : why it holds.
    exact_prox : whether `prox_l2` is a formula and not an iteration; it is tested before it is used.
    strong_convexity : mu <= every eigenvalue of A^T A; 0 where nothing better is known.
    convexity_reason : why that holds.
    """

    bound: float
    reason: str
    exact_prox: bool = False
    strong_convexity: float = 0.0
    convexity_reason: str = "none is known"


rule: Rules[Smoothness] = Rules("smoothness rule", Refused, f"its norm is unknown. {REMEDY}")
at_size: Rules[Callable[[Tensor], Smoothness] | None] = Rules("smoothness rule at one size of image", Refused, REMEDY)


def certified_smoothness(physics: LinearPhysics, example: Tensor | None = None) -> Smoothness:
    """An upper bound of |A|^2 computed from the physics, with its reason.

    Parameters
    ----------
    example : an image (batch, channels, height, width) that A takes. The bound is then that for its size, which for some
        operators is better, and for others the only one; without it the bound holds at every size.

    Raises
    ------
    Refused : no rule covers the exact class (or its padding), or a method or part of the instance was replaced.
    ValueError : a mask or filter that is missing, not real floating point, or has NaN or infinite values.
    """
    bound = at_size.of(physics) if example is not None and at_size.covers(physics) else None
    return rule.of(physics) if bound is None or example is None else bound(example)


def smoothness_at_every_size(physics: LinearPhysics) -> Smoothness | None:
    """As `certified_smoothness`, but None where that depends on the size of the images."""
    sized = at_size.covers(physics) and at_size.of(physics) is not None
    return None if sized else rule.of(physics)


def checked(physics: nn.Module, name: str) -> Tensor:
    """A mask or filter of a physics as the numbers it holds, or an error that says what is wrong with it."""
    value, owner = getattr(physics, name), type(physics).__name__
    if value is None:
        raise ValueError(f"{owner} has no {name} yet: give it one when it is made")
    if type(value) not in (Tensor, nn.Parameter):
        raise Refused(f"the norm of {owner} is unknown: its {name} is a {type(value).__name__}, not a plain tensor. {REMEDY}")
    if not value.dtype.is_floating_point:
        convert = "its real or imaginary part, or its modulus" if value.is_complex() else f"{name}.float()"
        raise ValueError(f"the {name} of {owner} is {value.dtype}: make it real floating point, {convert}")
    if value.numel() == 0 or not bool(torch.isfinite(value).all()):
        raise ValueError(f"the {name} of {owner} is empty or has NaN or infinite values")
    return value.detach()
