"""The theorems of descent on an explicit energy: what is proved of R in, a Guarantee or a refusal out.

Sources: the descent lemma and the convergence of descent methods of Kurdyka-Lojasiewicz functions [Attouch2013]; for convex
energies [BauschkeCombettes2017]; jumps and the splitting of Douglas and Rachford are derived (docs/theorems.md, P10 and P11).
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from pnp.bounds import Refused
from pnp.guarantees.guarantee import ARITHMETIC, Guarantee, check_step_size
from pnp.guarantees.watch import EnergyDescends
from stablenet.potential import Potential
from stablenet.rounding import down, round_up, up

RESIDUAL = "|x_(k+1) - x_k|"
BOUNDED = "the iterates stay bounded (proved where the data determine the image)"
GIVES_UP = (
    "the iteration map is not nonexpansive, the limit may depend on the start, and the restored image need not be a Lipschitz "
    "function of the measurement"
)


def projected_descent(
    potential: Potential, smoothness: float, *, step_size: float, weight: float, strong_convexity: float = 0.0
) -> Guarantee:
    """x+ = P(x - gamma (grad f + lambda grad R)(x)), P the projection onto the box: 0 < gamma < 2/U, U = L + lambda U_R.

    F = f + lambda R falls by (1/gamma - U/2)|x+ - x|^2 at least, and the whole sequence converges to one critical point
    [Attouch2013]; where mu >= lambda M, F is convex and the limit a global minimizer.

    Parameters
    ----------
    potential : what is proved of R: M its weak convexity, U_R its smoothness above.
    smoothness, strong_convexity : L >= 0 and mu >= 0 of the data fidelity.
    step_size, weight : gamma and lambda.

    Raises
    ------
    Refused : gamma is outside (0, 2/U), or lambda is not positive and finite.
    """
    check_step_size("Descent", step_size)
    check_step_size("Descent", weight, "weight")
    gamma, factor = Fraction(step_size), Fraction(weight)
    total = Fraction(smoothness) + factor * Fraction(potential.smoothness_above)
    if gamma * total >= 2:
        raise Refused(
            f"Descent with step_size={step_size:g} is not covered: smoothness <= {up(smoothness)} and weight = {weight:.6g} "
            f"times {up(potential.smoothness_above)} of the potential make U <= {up(total)}, so step_size must lie in "
            f"(0, {down(2 / total)})."
        )
    surplus = Fraction(strong_convexity) - factor * Fraction(potential.weak_convexity)
    convex = surplus >= 0
    limit = "to a global minimizer of it" if convex else "to one critical point of it"
    guarantee = Guarantee(
        theorem=f"projected gradient descent on F = f + weight R over the box [0, 1] converges, the whole sequence, {limit}",
        source="BauschkeCombettes2017; Attouch2013" if convex else "Attouch2013",
        statement=(
            f"F is U-smooth from above with U <= {up(total)} (smoothness <= {up(smoothness)}, weight = {weight:.6g}, the "
            f"potential's {up(potential.smoothness_above)}), step_size = {step_size:.6g} lies in (0, 2/U), and the potential "
            f"is {_convexity(potential)}"
        ),
        averagedness=None,
        monotone=RESIDUAL,
        assumptions=(ARITHMETIC,),
        existence="the box [0, 1] of pixels is compact and F is continuous",
        watch=EnergyDescends(_down(1 / gamma - total / 2), float(1 / gamma + total), float(total), box=True),
        gives_up="" if convex else GIVES_UP,
    )
    return _convex(guarantee, gamma, total, surplus) if convex else guarantee


def _convex(guarantee: Guarantee, gamma: Fraction, total: Fraction, surplus: Fraction) -> Guarantee:
    """A convex F of smoothness U: the gradient step is (gamma U/2)-averaged [BaillonHaddad1977], the projection firm."""
    half = gamma * total / 2
    phi = half / (1 - half) + 1
    averagedness = round_up(phi / (1 + phi))
    rate = round_up(max(abs(1 - gamma * surplus), abs(1 - gamma * total)))
    return replace(
        guarantee,
        averagedness=averagedness if averagedness < 1 else None,
        contraction=rate if surplus > 0 and rate < 1 else None,
    )


def proximal_descent(
    name: str, potential: Potential, curvature: Fraction, *, step_size: float, strong_convexity: Fraction = Fraction(0)
) -> Guarantee:
    """x+ = prox_R(x - grad g(x)), g convex of smoothness l = curvature, R M-weakly convex: l + M < 2 and M < 1.

    F = g + R falls by (1 - (l + M)/2)|x+ - x|^2: prox_R minimizes a (1 - M)-strongly convex function. g is gamma f for PGD,
    l = gamma L, and its Moreau envelope for HQS, l = gamma L/(1 + gamma L).

    Parameters
    ----------
    name : of the algorithm.
    potential, step_size : R and gamma.
    strong_convexity : of g.

    Raises
    ------
    Refused : l + M >= 2, or M >= 1.
    """
    check_step_size(name, step_size)
    weak = Fraction(potential.weak_convexity)
    if weak >= 1 or curvature + weak >= 2:
        raise Refused(
            f"{name} with step_size={step_size:g} is not covered: the potential is {_convexity(potential)}, and step_size "
            f"times the smoothness <= {up(curvature)} must lie below 2 - M, {down(max(2 - weak, Fraction(0)))}, with M < 1."
        )
    decrease = _down(1 - (curvature + weak) / 2)
    rate = round_up(max(abs(1 - strong_convexity), abs(1 - curvature)) / (1 - weak))
    bounded = rate < 1 or strong_convexity > 0
    limit = "it converges to the only one" if rate < 1 else "every limit is one"
    return Guarantee(
        theorem=f"{name} with an explicit potential descends on an energy to its critical points: {limit}",
        source="Attouch2013; Hurault2022",
        statement=(
            f"the potential is {_convexity(potential)}, its proximal operator is computed with certified, summable errors, and "
            f"step_size = {step_size:.6g} makes the smoothness {up(curvature)} < 2 - M"
        ),
        averagedness=None,
        monotone=RESIDUAL,
        assumptions=(ARITHMETIC,) if bounded else (BOUNDED, ARITHMETIC),
        contraction=rate if rate < 1 else None,
        watch=EnergyDescends(
            decrease, steepness=float(1 + curvature), curvature=float(curvature) + round_up(Fraction(potential.smoothness))
        ),
        gives_up=GIVES_UP,
    )


def weak_douglas_rachford(name: str, potential: Potential, strength: Fraction, *, step_size: float) -> Guarantee:
    """t+ = t + prox_(gamma f)(2x - t) - x, x = prox_R(t), with gamma f a-strongly convex and R M-weakly convex (P11, derived).

    Two trajectories obey |dt|^2 - |dt+|^2 >= |dx - du|^2 + 2a|du|^2 - 2M|dx|^2 >= kappa |dx - du|^2 with
    kappa = 1 - 2 M a/(a - M), so that the map is 1/(1 + kappa)-averaged where a > M/(1 - 2M).

    Parameters
    ----------
    name, potential, step_size : as in `proximal_descent`.
    strength : a = gamma mu.

    Raises
    ------
    Refused : M >= 1/2, or a <= M/(1 - 2M).
    """
    check_step_size(name, step_size)
    weak = Fraction(potential.weak_convexity)
    if 2 * weak >= 1 or strength * (1 - 2 * weak) <= weak:
        needed = "which no step_size allows" if 2 * weak >= 1 else f"above {up(weak / (1 - 2 * weak))}"
        raise Refused(
            f"{name} with step_size={step_size:g} is not covered: the potential is {_convexity(potential)}, and its theorem "
            f"needs M < 1/2 and step_size times the strong convexity of the data fidelity, here {down(strength)}, above "
            f"M/(1 - 2M), {needed}. Take pnp.Descent(), or a convex potential."
        )
    kappa = 1 - 2 * weak * strength / (strength - weak)
    return Guarantee(
        theorem=f"{name} with a weakly convex potential and a strongly convex data fidelity converges to the global minimizer",
        source="BauschkeCombettes2017",
        statement=(
            f"the potential is {_convexity(potential)} and step_size times the strong convexity of the data fidelity is "
            f">= {down(strength)} > M/(1 - 2M); the proximal operators are computed with certified, summable errors"
        ),
        averagedness=round_up(1 / (1 + kappa)),
        monotone="|t_(k+1) - t_k| of the Douglas-Rachford variable t",
        assumptions=(ARITHMETIC,),
        existence="the energy is strongly convex",
    )


def _convexity(potential: Potential) -> str:
    if potential.weak_convexity == 0:
        return f"convex ({potential.reason})"
    return f"M-weakly convex with M <= {up(potential.weak_convexity)} ({potential.reason})"


def _down(value: Fraction) -> float:
    """The largest float that is not above a positive rational."""
    return -round_up(-value)
