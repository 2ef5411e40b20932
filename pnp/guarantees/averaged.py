"""The theorems of averaged iteration maps as pure functions: certificates and step size in, a Guarantee or a refusal out.

Sources: [CombettesYamada2015] for compositions of averaged maps, [BauschkeCombettes2017] for the Krasnoselskii-Mann
iteration (theorem 5.15) and Douglas-Rachford splitting (theorem 26.11), [BaillonHaddad1977] for the gradient step; RED and the
linear rates are derived (docs/theorems.md, P4 and P6).
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from pnp.bounds import Refused
from pnp.guarantees.guarantee import (
    Guarantee,
    alpha,
    averaged,
    check_step_size,
    firmly_nonexpansive,
    relaxed,
    with_relaxation,
)
from stablenet.certificate import Certificate
from stablenet.rounding import down, round_up, up

RESIDUAL = "|x_(k+1) - x_k|"
CONTRACTION = "the iteration map is a contraction (Banach)"


def proximal_gradient(
    certificate: Certificate,
    smoothness: float,
    *,
    step_size: float,
    relaxation: float = 1.0,
    strong_convexity: float = 0.0,
) -> Guarantee:
    """x+ = D(x - gamma grad f(x)) converges for D averaged and 0 < gamma < 2/L. [CombettesYamada2015]

    The gradient step is (gamma L/2)-averaged and max(|1 - gamma mu|, |1 - gamma L|)-Lipschitz; composed with an
    alpha-averaged D by phi(alpha) = alpha/(1 - alpha), which adds. With D firmly nonexpansive the map is
    2/(4 - gamma L)-averaged. Where mu > 0, or D contracts, D need only be nonexpansive, and the rate is linear.

    Parameters
    ----------
    certificate : of the denoiser D before `relaxation`.
    smoothness : L, an upper bound of the Lipschitz constant of grad f, finite and >= 0.
    step_size : gamma.
    relaxation : l; the iteration uses (1 - l) I + l D.
    strong_convexity : mu >= 0, a lower bound.

    Raises
    ------
    Refused : gamma is outside (0, 2/L), or the relaxed denoiser is not averaged.
    """
    denoiser = relaxed("PGD", certificate, relaxation)
    check_step_size("PGD", step_size)
    gamma, upper, lower = Fraction(step_size), Fraction(smoothness), Fraction(strong_convexity)
    if gamma * upper >= 2:
        raise Refused(
            f"PGD with step_size={step_size:g} is not covered: smoothness <= {up(smoothness)}, so step_size must lie "
            f"in (0, {down(2 / upper)})."
        )
    factor = max(abs(1 - gamma * min(lower, upper)), abs(1 - gamma * upper))
    gradient = Certificate(round_up(factor), min(1.0, round_up(gamma * upper / 2)))
    iteration = gradient.then(denoiser)
    if iteration.lipschitz >= 1:
        averaged("PGD", certificate, relaxation)
        if not iteration.is_averaged:
            raise Refused(
                f"PGD with step_size={step_size!r} is not covered: smoothness <= {smoothness!r} leaves no room below 2/L; "
                "take a smaller step_size."
            )
    statement = (
        f"the denoiser{with_relaxation(relaxation)} is {up(alpha(denoiser))}-averaged and step_size = {step_size:g} "
        f"lies in (0, 2/L) with L <= {up(smoothness)}"
    )
    if denoiser.is_firmly_nonexpansive and iteration.averagedness:
        statement += f"; over-relaxation up to {down(1 / Fraction(iteration.averagedness))} would be covered"
    return _with_rate(
        Guarantee(
            theorem="plug-and-play proximal gradient converges to a fixed point",
            source="CombettesYamada2015; BauschkeCombettes2017",
            statement=statement,
            averagedness=iteration.averagedness,
            monotone=RESIDUAL,
        ),
        iteration,
    )


def half_quadratic(
    certificate: Certificate,
    *,
    step_size: float,
    relaxation: float = 1.0,
    strong_convexity: float = 0.0,
    exact_prox: bool = True,
) -> Guarantee:
    """x+ = D(prox_(gamma f)(x)) converges for D averaged and any gamma > 0: phi(alpha) + 1. [CombettesYamada2015]

    The proximal operator is firmly nonexpansive (phi = 1) and 1/(1 + gamma mu)-Lipschitz.

    Parameters
    ----------
    certificate, step_size, relaxation, strong_convexity : as in `proximal_gradient`.
    exact_prox : whether prox_(gamma f) has a formula; otherwise its errors must be summable [Combettes2004].

    Raises
    ------
    Refused : gamma is not a finite positive number, or the relaxed denoiser is not averaged.
    """
    denoiser = relaxed("HQS", certificate, relaxation)
    check_step_size("HQS", step_size)
    prox = Certificate(round_up(1 / (1 + Fraction(step_size) * Fraction(strong_convexity))), 0.5)
    iteration = prox.then(denoiser)
    if iteration.lipschitz >= 1:
        averaged("HQS", certificate, relaxation)
    return _with_rate(
        Guarantee(
            theorem="plug-and-play half-quadratic splitting converges to a fixed point",
            source=_with_errors("CombettesYamada2015; BauschkeCombettes2017", exact_prox),
            statement=(
                f"the denoiser{with_relaxation(relaxation)} is {up(alpha(denoiser))}-averaged and step_size = "
                f"{step_size:g} is positive" + summable(exact_prox)
            ),
            averagedness=iteration.averagedness,
            monotone=RESIDUAL,
        ),
        iteration,
    )


def douglas_rachford(
    certificate: Certificate,
    *,
    step_size: float,
    relaxation: float = 1.0,
    exact_prox: bool = True,
    name: str = "ADMM",
) -> Guarantee:
    """t+ = t + prox_(gamma f)(2 D(t) - t) - D(t), which is ADMM, converges for D firmly nonexpansive, any gamma > 0.

    The map is (I + R_f R_D)/2 with R = 2 prox - I and R_D = 2 D - I nonexpansive, hence 1/2-averaged.
    [BauschkeCombettes2017]

    Parameters
    ----------
    certificate, step_size, relaxation, exact_prox : as in `half_quadratic`.
    name : of the algorithm that asks.

    Raises
    ------
    Refused : the relaxed denoiser is not firmly nonexpansive, or gamma is not a finite positive number.
    """
    relaxed(name, certificate, relaxation)
    check_step_size(name, step_size)
    denoiser = firmly_nonexpansive(name, certificate, relaxation)
    return Guarantee(
        theorem="plug-and-play ADMM (Douglas-Rachford) converges to a fixed point",
        source=_with_errors("BauschkeCombettes2017", exact_prox),
        statement=(
            f"the denoiser{with_relaxation(relaxation)} is firmly nonexpansive (averagedness <= "
            f"{up(alpha(denoiser))}) and step_size = {step_size:g} is positive" + summable(exact_prox)
        ),
        averagedness=0.5,
        monotone="|t_(k+1) - t_k| of the Douglas-Rachford variable t",
    )


def regularization_by_denoising(
    certificate: Certificate, smoothness: float, *, step_size: float, weight: float, strong_convexity: float = 0.0
) -> Guarantee:
    """x+ = x - gamma (grad f(x) + tau (x - D(x))) converges for gamma < 2/(L + 2 alpha tau). (P4, derived)

    grad f is 1/L-cocoercive and I - D is 1/(2 alpha)-cocoercive, so their weighted sum is 1/(L + 2 alpha tau)-cocoercive and
    the map is gamma (L + 2 alpha tau)/2-averaged; D need only be nonexpansive (alpha = 1).

    Parameters
    ----------
    certificate : of the denoiser D.
    smoothness, step_size, strong_convexity : L, gamma and mu.
    weight : tau > 0.

    Raises
    ------
    Refused : gamma is outside (0, 2/(L + 2 alpha tau)), tau is not positive, or D is not nonexpansive.
    """
    denoiser = relaxed("RED", certificate, 1.0)
    check_step_size("RED", step_size)
    check_step_size("RED", weight, "weight")
    total = Fraction(smoothness) + 2 * Fraction(alpha(denoiser)) * Fraction(weight)
    half = Fraction(step_size) * total / 2
    if half >= 1 or round_up(half) >= 1:
        raise Refused(
            f"RED with step_size={step_size:g} is not covered: L + 2 alpha weight <= {up(total)} with smoothness <= "
            f"{up(smoothness)}, averagedness <= {up(alpha(denoiser))} and weight = {weight:g}, so step_size must lie "
            f"in (0, {down(2 / total)})."
        )
    guarantee = Guarantee(
        theorem="gradient descent on regularization by denoising converges to a fixed point",
        source="BaillonHaddad1977; BauschkeCombettes2017",
        statement=(
            f"the denoiser is {up(alpha(denoiser))}-averaged and step_size = {step_size:g} lies in (0, 2/(L + 2 alpha "
            f"weight)) with L <= {up(smoothness)} and weight = {weight:g}"
        ),
        averagedness=round_up(half),
        monotone=RESIDUAL,
    )
    if denoiser.lipschitz < 1:
        return guarantee.with_fixed_point("I - D is strongly monotone")
    return guarantee


def _with_rate(guarantee: Guarantee, iteration: Certificate) -> Guarantee:
    """The same with the linear rate, the uniqueness and the existence that a contraction gives. [Banach1922]"""
    if iteration.lipschitz >= 1:
        return guarantee
    return replace(guarantee, contraction=iteration.lipschitz).with_fixed_point(CONTRACTION)


def _with_errors(source: str, exact_prox: bool) -> str:
    return source if exact_prox else f"{source}; Combettes2004"


def summable(exact_prox: bool) -> str:
    """What a statement adds where the proximal operator is iterated."""
    return "" if exact_prox else "; the proximal operator is computed with certified, summable errors"
