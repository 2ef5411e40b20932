"""The theorem of Condat and Vu with a denoiser in place of one proximal operator, in the norm that belongs to it.

Sources: [Condat2013], [Vu2013]; a firmly nonexpansive D is the resolvent of a maximally monotone operator (Minty), which is all
that their proofs use of a proximal operator (docs/theorems.md, P5).
"""

from __future__ import annotations

import math
from fractions import Fraction

from pnp.bounds import Refused
from pnp.guarantees.guarantee import Guarantee, alpha, check_step_size, firmly_nonexpansive, relaxed, with_relaxation
from stablenet.certificate import Certificate
from stablenet.rounding import down, round_up, up

NORM = "|(x, u)_(k+1) - (x, u)_k| in the norm of tau [[I/tau, -K^T], [-K, I/sigma]]"


def condat_vu(
    certificate: Certificate,
    smoothness: float,
    squared_norm: float,
    *,
    step_size: float,
    dual_step_size: float,
    relaxation: float = 1.0,
) -> Guarantee:
    """x+ = D(x - tau grad f(x) - tau K^T u), u+ = prox_(sigma g*)(u + sigma K(2x+ - x)) converges for D firmly nonexpansive.

    Needs 1/tau - sigma |K|^2 > L/2, or tau sigma |K|^2 <= 1 where f = 0 (L = 0). In the norm of P the map is 1/delta-averaged,
    delta = 2 - L/2 / (1/tau - sigma |K|^2).

    Parameters
    ----------
    certificate : of the denoiser D before `relaxation`.
    smoothness : L of the smooth part f, 0 without one.
    squared_norm : an upper bound of |K|^2, 0 without a g.
    step_size, dual_step_size : tau and sigma.
    relaxation : l; the iteration uses (1 - l) I + l D.

    Raises
    ------
    Refused : the step sizes are too large, or the relaxed denoiser is not firmly nonexpansive.
    """
    relaxed("CondatVu", certificate, relaxation)
    check_step_size("CondatVu", step_size)
    check_step_size("CondatVu", dual_step_size, "dual_step_size")
    denoiser = firmly_nonexpansive("CondatVu", certificate, relaxation)
    tau, sigma = Fraction(step_size), Fraction(dual_step_size)
    room = 1 / tau - sigma * Fraction(squared_norm)
    if room < 0 or (smoothness > 0 and 2 * room <= Fraction(smoothness)):
        raise Refused(_refusal(step_size, dual_step_size, smoothness, squared_norm))
    delta = Fraction(2) if smoothness == 0 else 2 - Fraction(smoothness) / 2 / room
    averagedness = round_up(1 / delta)
    if averagedness >= 1:
        raise Refused(_refusal(step_size, dual_step_size, smoothness, squared_norm))
    return Guarantee(
        theorem="the plug-and-play primal-dual iteration of Condat and Vu converges to a fixed point",
        source="Condat2013; Vu2013; BauschkeCombettes2017",
        statement=(
            f"the denoiser{with_relaxation(relaxation)} is firmly nonexpansive (averagedness <= "
            f"{up(alpha(denoiser))}) and 1/step_size - dual_step_size |K|^2 >= {down(room)} "
            + (f"exceeds L/2 <= {up(smoothness / 2)}" if smoothness else "is not negative")
            + f" with step_size = {step_size:g}, dual_step_size = {dual_step_size:g}, |K|^2 <= {up(squared_norm)}"
        ),
        averagedness=averagedness,
        monotone=NORM,
    )


def _refusal(tau: float, sigma: float, smoothness: float, squared_norm: float) -> str:
    if smoothness == 0:
        return (
            f"CondatVu with step_size={tau:g} and dual_step_size={sigma:g} is not covered: |K|^2 <= {up(squared_norm)}, so "
            f"dual_step_size must lie in (0, {down(1 / (Fraction(tau) * Fraction(squared_norm)))}]."
        )
    room = 1 / Fraction(tau) - Fraction(smoothness) / 2
    if room <= 0:
        return (
            f"CondatVu with step_size={tau:g} is not covered: smoothness <= {up(smoothness)}, so step_size must lie in "
            f"(0, {down(2 / Fraction(smoothness))})."
        )
    admissible = math.inf if squared_norm == 0 else room / Fraction(squared_norm)
    return (
        f"CondatVu with step_size={tau:g} and dual_step_size={sigma:g} is not covered: smoothness <= {up(smoothness)} and "
        f"|K|^2 <= {up(squared_norm)}, so dual_step_size must lie in (0, {down(admissible)})."
    )
