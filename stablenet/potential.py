"""Explicit potentials R(x) and what is proved of their curvature, by one rule per exact class.

Source: R = sum psi(|.|) of a linear map W, with slopes of psi' in [-rho, mu] and N >= |W|^2, is rho N-weakly convex and
mu N-smooth from above (docs/theorems.md, V1); weakly convex ridge regularizers are [Goujon2024].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor, nn

from stablenet.certificate import Certificate, NotCertified, require_finite
from stablenet.rounding import round_up
from stablenet.rules import Rules


@dataclass(frozen=True)
class Potential:
    """What is proved of R(., noise_level), at every noise level and image size.

    Parameters
    ----------
    weak_convexity : M >= 0, R + M/2 |x|^2 is convex; 0 says that R is convex.
    smoothness_above : U >= 0, U/2 |x|^2 - R is convex: R(y) <= R(x) + <grad R(x), y - x> + U/2 |y - x|^2.
    reason : how the two were found.

    Raises
    ------
    ValueError : a constant is negative or not finite.
    """

    weak_convexity: float
    smoothness_above: float
    reason: str = ""

    def __post_init__(self) -> None:
        for name in ("weak_convexity", "smoothness_above"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and >= 0, got {value!r}")

    def __str__(self) -> str:
        kind = "convex" if self.is_convex else f"weak convexity <= {self.weak_convexity:.6g}"
        text = f"potential: {kind}, smoothness <= {self.smoothness:.6g}"
        return f"{text} ({self.reason})" if self.reason else text

    @property
    def smoothness(self) -> float:
        """A Lipschitz constant of grad R."""
        return max(self.weak_convexity, self.smoothness_above)

    @property
    def is_convex(self) -> bool:
        return self.weak_convexity == 0

    @property
    def has_proximal_map(self) -> bool:
        """M < 1: x -> |x - y|^2/2 + R(x) is strongly convex, so that prox_R is single valued."""
        return self.weak_convexity < 1

    @property
    def proximal_certificate(self) -> Certificate:
        """Of prox_R, M < 1: firmly nonexpansive for convex R, else 1/(1 - M)-Lipschitz (docs/theorems.md, V2)."""
        if self.is_convex:
            return Certificate(1.0, 0.5)
        return Certificate(round_up(1 / (1 - Fraction(self.weak_convexity))))


@dataclass(frozen=True)
class Denoised:
    """A denoised image with what is proved of it.

    Parameters
    ----------
    image : (batch, channels, height, width).
    error : (batch,) a bound of the l2 distance to the exact result, in real arithmetic.
    """

    image: Tensor
    error: Tensor


rule: Rules[Potential] = Rules(
    "potential",
    NotCertified,
    "known are {known}; register one with @stablenet.potential.rule({name}), for a module with energy(x, sigma) and "
    "gradient(x, sigma)",
)


bounded_error: Rules[str] = Rules(
    "bound of the error",
    NotCertified,
    "known are {known}; @stablenet.potential.bounded_error({name}) says why what its `denoise` gives as `Denoised` is one",
)
"""Why the error is a bound, of modules without a potential at hand whose `denoise` is iterated, by exact class."""


def certify(module: nn.Module) -> Potential:
    """Prove the weak convexity and the smoothness of a module's potential from its present weights.

    Raises
    ------
    NotCertified : no rule for the exact class, or an altered instance.
    ValueError : a parameter is NaN or infinite.
    """
    require_finite(module)
    return rule.of(module)
