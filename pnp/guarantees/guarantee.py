"""A convergence theorem with its hypotheses checked: what converges, why, what bounds it rests on, what is assumed.

Source: the theorems are docs/theorems.md, P1 to P12; each algorithm fills in its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from pnp.bounds import Bound, Refused
from pnp.guarantees.watch import EnergyDescends, Nonincreasing, Watch
from stablenet.certificate import Certificate
from stablenet.rounding import down, up

FIXED_POINT = "a fixed point exists (guaranteed when the data determine the image; otherwise not proved)"
ARITHMETIC = "the iteration is carried out in floating-point numbers, the theorem speaks of real ones"


@dataclass(frozen=True)
class Guarantee:
    """A convergence theorem with its hypotheses checked for one run.

    Parameters
    ----------
    theorem : what converges, in a few words.
    source : keys of docs/references.bib.
    statement : the hypotheses with their numbers.
    averagedness : alpha of the iteration map, or None when the theorem does not give one.
    monotone : the residual of the theorem, in its own variable and norm.
    assumptions : what is taken for granted and was not proved.
    contraction : q < 1, a Lipschitz constant of the iteration map, where one is proved.
    existence : why a fixed point exists, where that is proved.
    watch : the law that the iterates are held to.
    bounds : the proved numbers of the problem that the statement rests on, each with its reason.
    tested : what was tried on random vectors only.
    gives_up : what a stricter theorem would promise besides, in a sentence, or nothing.
    """

    theorem: str
    source: str
    statement: str
    averagedness: float | None
    monotone: str
    assumptions: tuple[str, ...] = (FIXED_POINT, ARITHMETIC)
    contraction: float | None = None
    existence: str | None = None
    watch: Watch = Nonincreasing()
    bounds: tuple[str, ...] = ()
    tested: tuple[str, ...] = ()
    gives_up: str = ""

    def residual_bound(self, distance: float, iteration: int) -> float:
        """A bound of the residual |x_k - T x_k|: sqrt(alpha/(1 - alpha)) d0/sqrt(k + 1), or what the scheme proves.

        Parameters
        ----------
        distance : d0, a bound of the distance from the start to a fixed point, in the variable of `monotone`.
        iteration : k >= 0.
        """
        return self.watch.residual_bound(self.averagedness, distance, iteration)

    def with_fixed_point(self, reason: str) -> Guarantee:
        """The same guarantee, where `reason` proves that a fixed point exists."""
        rest = tuple(text for text in self.assumptions if text != FIXED_POINT)
        return replace(self, existence=reason, assumptions=rest)

    def resting_on(self, name: str, bound: Bound) -> Guarantee:
        """The same guarantee, telling of a bound that it used; one that is not proved becomes an assumption."""
        if bound.source == "proved":
            return replace(self, bounds=(*self.bounds, f"{name}, proved: {bound.reason}"))
        word = "as supplied" if bound.source == "supplied" else f"which is only probable: {bound.reason}"
        return replace(self, assumptions=(*self.assumptions, f"{name}, {word}"))

    def tested_only(self, tested: tuple[str, ...]) -> Guarantee:
        """The same guarantee, telling what was tried on random vectors only."""
        return replace(self, tested=(*self.tested, *tested))

    @property
    def law(self) -> str:
        """What is watched, in words."""
        return self.watch.law.format(residual=self.monotone)

    def __str__(self) -> str:
        lines = [f"{self.theorem} [{self.source}]", f"  because {self.statement}"]
        if self.averagedness is not None:
            lines.append(f"  the iteration map is {up(self.averagedness)}-averaged; {self.law}")
        elif isinstance(self.watch, EnergyDescends):
            lines.append(f"  {self.law}")
        if self.contraction is not None:
            lines.append(
                f"  it is a contraction of factor {up(self.contraction)}: linear convergence to the only fixed point x*, "
                "|x_k - x*| <= q/(1-q) |x_k - x_(k-1)|"
            )
        if self.existence is not None:
            lines.append(f"  a fixed point exists: {self.existence}")
        lines += [f"  {text}" for text in self.bounds]
        lines += [f"  tested, not proved: {text}" for text in self.tested]
        lines += [f"  this rung gives up: {self.gives_up}"] if self.gives_up else []
        return "\n".join(lines + [f"  assuming {text}" for text in self.assumptions])


def check_step_size(algorithm: str, step_size: float, name: str = "step_size") -> None:
    """Refuse a step size that is not a finite positive number."""
    if not (math.isfinite(step_size) and step_size > 0):
        raise Refused(f"{algorithm} with {name}={step_size} is not covered: {name} must be finite and positive.")


def alpha(certificate: Certificate) -> float:
    """The averagedness of a map that is known to be nonexpansive, so that it has one."""
    assert certificate.averagedness is not None
    return certificate.averagedness


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


def firmly_nonexpansive(algorithm: str, certificate: Certificate, relaxation: float) -> Certificate:
    """The certificate of a relaxed denoiser that is firmly nonexpansive, or a refusal with the admissible relaxations."""
    denoiser = relaxed(algorithm, certificate, relaxation)
    if not denoiser.is_firmly_nonexpansive:
        raise Refused(
            f"{algorithm} with relaxation={relaxation:g} is not covered: the denoiser's averagedness <= "
            f"{up(alpha(certificate))} and the relaxed one must be firmly nonexpansive (<= 0.50), so relaxation "
            f"must lie in (0, {down(largest_relaxation(certificate))}]."
        )
    return denoiser


def averaged(algorithm: str, certificate: Certificate, relaxation: float) -> Certificate:
    """The certificate of a relaxed denoiser that is averaged (alpha < 1), or a refusal with the admissible relaxations."""
    denoiser = relaxed(algorithm, certificate, relaxation)
    if not denoiser.is_averaged:
        raise Refused(
            f"{algorithm} with relaxation={relaxation:g} is not covered: the denoiser's averagedness <= "
            f"{up(alpha(certificate))}, so relaxation must lie in (0, "
            f"{down(largest_relaxation(certificate, Fraction(1)))})."
        )
    return denoiser


def with_relaxation(relaxation: float) -> str:
    """How a statement names the denoiser."""
    return "" if relaxation == 1 else f" relaxed by {relaxation:.6g}"
