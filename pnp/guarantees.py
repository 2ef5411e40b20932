"""Each convergence theorem as a pure function: certificates and step size in, a Guarantee or a refusal out.

Sources: [CombettesYamada2015] for compositions of averaged maps, [BauschkeCombettes2017] for the Krasnoselskii-Mann
iteration (theorem 5.15) and Douglas-Rachford splitting (theorem 26.11), [BaillonHaddad1977] for the gradient step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from pnp.bounds import Refused
from stablenet.certificate import Certificate
from stablenet.rounding import round_up


@dataclass(frozen=True)
class Guarantee:
    """A convergence theorem with its hypotheses checked for one run.

    Parameters
    ----------
    theorem : what converges, in a few words.
    source : keys of docs/references.bib.
    statement : the hypotheses with their numbers.
    averagedness : alpha of the iteration map, or None when the theorem does not give one.
    monotone : the residual that can never increase, per image.
    assumptions : what is taken for granted and was not proved.
    """

    theorem: str
    source: str
    statement: str
    averagedness: float | None
    monotone: str
    assumptions: tuple[str, ...]

    def residual_bound(self, distance: float, iteration: int) -> float:
        """sqrt(alpha/(1 - alpha)) d0/sqrt(k + 1): a bound of the residual |x_k - T x_k|.

        Parameters
        ----------
        distance : d0, a bound of the distance from the start to a fixed point, in the variable of `monotone`.
        iteration : k >= 0.
        """
        if self.averagedness is None or self.averagedness >= 1:
            return math.inf
        return math.sqrt(self.averagedness / (1 - self.averagedness)) * distance / math.sqrt(iteration + 1)

    def __str__(self) -> str:
        lines = [f"{self.theorem} [{self.source}]", f"  because {self.statement}"]
        if self.averagedness is not None:
            lines.append(f"  the iteration map is {up(self.averagedness)}-averaged; {self.monotone} never increases")
        return "\n".join(lines + [f"  assuming {text}" for text in self.assumptions])


FIXED_POINT = "a fixed point exists (guaranteed when the data determine the image; otherwise not proved)"
ARITHMETIC = "the iteration is carried out in floating-point numbers, the theorem speaks of real ones"


def up(value: float | Fraction) -> str:
    """At most six decimals, rounded up, at least two: what is printed is still an upper bound."""
    return _decimals(math.ceil(Fraction(value) * 10**6))


def down(value: float | Fraction) -> str:
    """At most six decimals, rounded down, at least two: what is printed is still admissible."""
    return _decimals(math.floor(Fraction(value) * 10**6))


def _decimals(millionths: int) -> str:
    whole, digits = f"{millionths / 10**6:.6f}".split(".")
    return f"{whole}.{digits.rstrip('0'):0<2}"


def check_step_size(algorithm: str, step_size: float) -> None:
    """Refuse a step size that is not a finite positive number."""
    if not (math.isfinite(step_size) and step_size > 0):
        raise Refused(f"{algorithm} with step_size={step_size} is not covered: step_size must be finite and positive.")


def relaxed(algorithm: str, certificate: Certificate, relaxation: float) -> Certificate:
    """The certificate of (1 - l) I + l D, l = relaxation in (0, 1/alpha], or a refusal. [BauschkeCombettes2017]"""
    if certificate.averagedness is None:
        raise Refused(
            f"{algorithm} is not covered: the denoiser is only known to have a Lipschitz constant <= "
            f"{up(certificate.lipschitz)}, and the theorem needs one that is nonexpansive (<= 1). "
            "Train or enforce the denoiser with a nonexpansive architecture."
        )
    if not (math.isfinite(relaxation) and relaxation > 0):
        raise Refused(f"{algorithm} with relaxation={relaxation} is not covered: relaxation must be positive.")
    return certificate.relax(relaxation)


def largest_relaxation(certificate: Certificate, target: Fraction = Fraction(1, 2)) -> float:
    """The largest float l with l alpha <= target, so that (1 - l) I + l D is target-averaged; inf for alpha = 0."""
    if certificate.averagedness is None:
        return 0.0
    alpha = Fraction(certificate.averagedness)
    if alpha == 0:
        return math.inf
    weight = float(target / alpha)
    while Fraction(weight) * alpha > target:
        weight = math.nextafter(weight, 0.0)
    return weight


def proximal_gradient(certificate: Certificate, smoothness: float, *, step_size: float, relaxation: float = 1.0) -> Guarantee:
    """x+ = D(x - gamma grad f(x)) converges for D averaged and 0 < gamma < 2/L. [CombettesYamada2015]

    The gradient step is (gamma L/2)-averaged; composed with an alpha-averaged D by phi(alpha) = alpha/(1 - alpha),
    which adds. With D firmly nonexpansive the map is 2/(4 - gamma L)-averaged.

    Parameters
    ----------
    certificate : of the denoiser D before relaxation.
    smoothness : L, an upper bound of the Lipschitz constant of grad f, finite and >= 0.
    step_size : gamma.
    relaxation : l; the iteration uses (1 - l) I + l D.

    Raises
    ------
    Refused : gamma is outside (0, 2/L), or the relaxed denoiser is not averaged.
    """
    denoiser = relaxed("PGD", certificate, relaxation)
    check_step_size("PGD", step_size)
    half = Fraction(step_size) * Fraction(smoothness) / 2
    if half >= 1:
        raise Refused(
            f"PGD with step_size={step_size:g} is not covered: smoothness <= {up(smoothness)}, so step_size must lie "
            f"in (0, {down(2 / Fraction(smoothness))})."
        )
    if not denoiser.is_averaged:
        admissible = largest_relaxation(certificate, Fraction(1))
        raise Refused(
            f"PGD with relaxation={relaxation:g} is not covered: the denoiser's averagedness <= "
            f"{up(certificate.averagedness)}, so relaxation must lie in (0, {down(admissible)})."
        )
    gradient = Certificate(1.0, min(1.0, round_up(half)))
    iteration = gradient.then(denoiser)
    if not iteration.is_averaged:
        raise Refused(
            f"PGD with step_size={step_size!r} is not covered: smoothness <= {smoothness!r} leaves no room below 2/L; "
            "take a smaller step_size."
        )
    statement = (
        f"the denoiser{_with(relaxation)} is {up(denoiser.averagedness)}-averaged and step_size = {step_size:g} lies "
        f"in (0, 2/L) with L <= {up(smoothness)}"
    )
    if denoiser.is_firmly_nonexpansive:
        statement += f"; over-relaxation up to {down(1 / Fraction(iteration.averagedness))} would be covered"
    return Guarantee(
        theorem="plug-and-play proximal gradient converges to a fixed point",
        source="CombettesYamada2015; BauschkeCombettes2017",
        statement=statement,
        averagedness=iteration.averagedness,
        monotone="|x_(k+1) - x_k|",
        assumptions=(FIXED_POINT, ARITHMETIC),
    )


def douglas_rachford(
    certificate: Certificate, *, step_size: float, relaxation: float = 1.0, exact_prox: bool = True
) -> Guarantee:
    """t+ = t + prox_(gamma f)(2 D(t) - t) - D(t), which is ADMM, converges for D firmly nonexpansive, any gamma > 0.

    The map is (I + R_f R_D)/2 with R = 2 prox - I and R_D = 2 D - I nonexpansive, hence 1/2-averaged.
    [BauschkeCombettes2017]

    Parameters
    ----------
    certificate : of the denoiser D before relaxation.
    step_size : gamma.
    relaxation : l; the iteration uses (1 - l) I + l D.
    exact_prox : whether prox_(gamma f) has a formula; otherwise its errors must be summable [Combettes2004].

    Raises
    ------
    Refused : the relaxed denoiser is not firmly nonexpansive, or gamma is not a finite positive number.
    """
    denoiser = relaxed("ADMM", certificate, relaxation)
    check_step_size("ADMM", step_size)
    if not denoiser.is_firmly_nonexpansive:
        raise Refused(
            f"ADMM with relaxation={relaxation:g} is not covered: the denoiser's averagedness <= "
            f"{up(certificate.averagedness)} and the relaxed one must be firmly nonexpansive (<= 0.50), so relaxation "
            f"must lie in (0, {down(largest_relaxation(certificate))}]."
        )
    return Guarantee(
        theorem="plug-and-play ADMM (Douglas-Rachford) converges to a fixed point",
        source="BauschkeCombettes2017" if exact_prox else "BauschkeCombettes2017; Combettes2004",
        statement=(
            f"the denoiser{_with(relaxation)} is firmly nonexpansive (averagedness <= {up(denoiser.averagedness)}) and "
            f"step_size = {step_size:g} is positive"
            + ("" if exact_prox else "; the proximal operator is computed with certified, summable errors")
        ),
        averagedness=0.5,
        monotone="|t_(k+1) - t_k| of the Douglas-Rachford variable t",
        assumptions=(FIXED_POINT, ARITHMETIC),
    )


def _with(relaxation: float) -> str:
    return "" if relaxation == 1 else f" relaxed by {relaxation:.6g}"
