"""Each convergence theorem as a pure function: certificates and step sizes in, a Guarantee or a refusal out."""

from pnp.bounds import Refused
from pnp.guarantees.averaged import douglas_rachford, half_quadratic, proximal_gradient, regularization_by_denoising
from pnp.guarantees.descent import projected_descent, proximal_descent, weak_douglas_rachford
from pnp.guarantees.guarantee import ARITHMETIC, FIXED_POINT, Guarantee, largest_relaxation
from pnp.guarantees.primal_dual import condat_vu
from pnp.guarantees.watch import Averaged, EnergyDescends, Evaluation, Nonincreasing, Unwatched, Watch
from stablenet.rounding import down, up

__all__ = [
    "ARITHMETIC",
    "FIXED_POINT",
    "Averaged",
    "EnergyDescends",
    "Evaluation",
    "Guarantee",
    "Nonincreasing",
    "Refused",
    "Unwatched",
    "Watch",
    "condat_vu",
    "douglas_rachford",
    "down",
    "half_quadratic",
    "largest_relaxation",
    "projected_descent",
    "proximal_descent",
    "proximal_gradient",
    "regularization_by_denoising",
    "up",
    "weak_douglas_rachford",
]
