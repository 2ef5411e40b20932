"""Certificates and their algebra, and `certify`, which walks a network by one rule per exact class.

Source: composition of averaged maps [CombettesYamada2015]; the other rules are docs/theorems.md, C1 to C6.
All arithmetic is exact (rationals) and rounded up once, so that a certificate never understates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import nn

from stablenet.rounding import round_up, six_digits_up
from stablenet.rules import Rules


class NotCertified(TypeError):
    """Raised when a module has no certificate rule; the message names the module and the remedy."""


@dataclass(frozen=True)
class Certificate:
    """What is proved of a map T: |Tx - Ty| <= lipschitz |x - y|, and T = (1 - alpha) I + alpha N, N nonexpansive.

    Parameters
    ----------
    lipschitz : a certified upper bound, finite, >= 0.
    averagedness : alpha in [0, 1], or None when unknown. Normalized on construction: a map of Lipschitz constant
        c <= 1 is at worst (1 + c)/2-averaged (1 says merely nonexpansive), and a map with alpha given is
        nonexpansive. None therefore means that not even nonexpansiveness is proved.

    Raises
    ------
    ValueError : a value out of range or not finite.
    """

    lipschitz: float
    averagedness: float | None = None

    def __post_init__(self) -> None:
        lipschitz, alpha = float(self.lipschitz), self.averagedness
        if not (math.isfinite(lipschitz) and lipschitz >= 0):
            raise ValueError(f"lipschitz must be finite and >= 0, got {self.lipschitz!r}")
        if alpha is not None:
            alpha = float(alpha)
            if not 0 <= alpha <= 1:
                raise ValueError(f"averagedness must lie in [0, 1] or be None, got {self.averagedness!r}")
            lipschitz = min(lipschitz, 1.0)
        if lipschitz <= 1:
            alpha = min(1.0 if alpha is None else alpha, round_up((1 + Fraction(lipschitz)) / 2))
        object.__setattr__(self, "lipschitz", lipschitz)
        object.__setattr__(self, "averagedness", alpha)

    @property
    def is_nonexpansive(self) -> bool:
        return self.lipschitz <= 1

    @property
    def is_averaged(self) -> bool:
        """alpha < 1: Krasnoselskii-Mann iterations of the map converge."""
        return self.averagedness is not None and self.averagedness < 1

    @property
    def is_firmly_nonexpansive(self) -> bool:
        """alpha <= 1/2."""
        return self.averagedness is not None and self.averagedness <= 0.5

    def then(self, after: Certificate) -> Certificate:
        """The composition after(self(x)): constants multiply, alpha/(1 - alpha) adds. [CombettesYamada2015]"""
        lipschitz = round_up(Fraction(self.lipschitz) * Fraction(after.lipschitz))
        if self.averagedness is None or after.averagedness is None:
            return Certificate(lipschitz)
        first, second = Fraction(self.averagedness), Fraction(after.averagedness)
        if first == 1 or second == 1:
            return Certificate(lipschitz, 1.0)
        phi = first / (1 - first) + second / (1 - second)
        return Certificate(lipschitz, round_up(phi / (1 + phi)))

    def relax(self, weight: float) -> Certificate:
        """(1 - weight) I + weight T is (weight alpha)-averaged; weight >= 0, over-relaxation included.

        Raises
        ------
        ValueError : weight is negative or not finite.
        """
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"a relaxation weight must be finite and >= 0, got {weight}")
        exact = Fraction(weight)
        lipschitz = round_up(abs(1 - exact) + exact * Fraction(self.lipschitz))
        if self.averagedness is not None and exact * Fraction(self.averagedness) <= 1:
            return Certificate(lipschitz, round_up(exact * Fraction(self.averagedness)))
        return Certificate(lipschitz)

    def scale(self, factor: float) -> Certificate:
        """x -> T(factor x)/factor, factor != 0: both constants are kept."""
        if not (math.isfinite(factor) and factor != 0):
            raise ValueError(f"a scaling factor must be finite and not 0, got {factor}")
        return self

    def conjugate(self) -> Certificate:
        """E^T T E for an isometry E (E^T E = I): both constants are kept; every isometric lift is one."""
        return self

    def __str__(self) -> str:
        alpha = "unknown" if self.averagedness is None else six_digits_up(self.averagedness)
        return f"lipschitz <= {six_digits_up(self.lipschitz)}, averagedness <= {alpha}"


IDENTITY = Certificate(1.0, 0.0)
NONEXPANSIVE = Certificate(1.0, 1.0)


def compose(certificates: Sequence[Certificate]) -> Certificate:
    """The certificate of applying the maps one after the other, first to last; of none, the identity."""
    result = IDENTITY
    for certificate in certificates:
        result = result.then(certificate)
    return result


def mix(certificates: Sequence[Certificate], weights: Sequence[float]) -> Certificate:
    """A convex combination sum_i w_i T_i: Lipschitz constants and alphas average with the weights.

    Raises
    ------
    ValueError : the weights are negative, do not match the certificates or do not sum to 1 within 1e-9.
    """
    exact = [Fraction(w) for w in weights]
    if len(exact) != len(certificates) or not exact:
        raise ValueError(f"{len(certificates)} certificates need as many weights, got {len(exact)}")
    if min(exact) < 0 or abs(sum(exact, Fraction(0)) - 1) > Fraction(1, 10**9):
        raise ValueError(f"weights must be >= 0 and sum to 1, got {list(weights)}")
    total = sum(exact, Fraction(0))
    exact = [w / total for w in exact]
    lipschitz = round_up(_average(exact, [c.lipschitz for c in certificates]))
    alphas = [c.averagedness for c in certificates if c.averagedness is not None]
    if len(alphas) < len(certificates):
        return Certificate(lipschitz)
    return Certificate(lipschitz, min(1.0, round_up(_average(exact, alphas))))


def _average(weights: Sequence[Fraction], values: Sequence[float]) -> Fraction:
    return sum((w * Fraction(value) for w, value in zip(weights, values, strict=True)), Fraction(0))


@dataclass(frozen=True)
class CertificateTree:
    """A certificate with the reasons it rests on: prints as a tree, one line a module."""

    name: str
    certificate: Certificate
    reason: str = ""
    children: tuple[CertificateTree, ...] = ()

    @property
    def lipschitz(self) -> float:
        return self.certificate.lipschitz

    @property
    def averagedness(self) -> float | None:
        return self.certificate.averagedness

    def lines(self, indent: str = "") -> Iterator[str]:
        reason = f"  [{self.reason}]" if self.reason else ""
        yield f"{self.name}: {self.certificate}{reason}"
        for k, child in enumerate(self.children):
            last = k == len(self.children) - 1
            head, rest = ("└─ ", "   ") if last else ("├─ ", "│  ")
            for n, line in enumerate(child.lines()):
                yield (head if n == 0 else rest) + line

    def __str__(self) -> str:
        return "\n".join(self.lines())


rule: Rules[CertificateTree] = Rules(
    "certificate rule",
    NotCertified,
    "register one with @stablenet.certificate.rule({name}) or use a module that has one",
)


def certify(module: nn.Module) -> CertificateTree:
    """Prove a Lipschitz constant and an averagedness of a module from its present weights.

    The certificate speaks of the module in evaluation mode, at every image size, in exact arithmetic.

    Raises
    ------
    NotCertified : a module has no rule for its exact class, or is altered in a way that no rule can see through: hooks, a
        replaced method, a compiled call, a parametrization, a parameter that is not a plain real tensor.
    ValueError : a parameter is NaN or infinite.
    """
    require_finite(module)
    return rule.of(module)


def require_finite(module: nn.Module) -> None:
    """Raise ValueError for the first parameter that holds NaN or infinity."""
    for name, parameter in module.named_parameters():
        if type(parameter) is nn.Parameter and not torch.isfinite(parameter).all():
            raise ValueError(
                f"{type(module).__name__}.{name} holds NaN or infinity: nothing is proved of it; restore a checkpoint"
            )


def _leaf(certificate: Certificate, reason: str) -> Callable[[nn.Module], CertificateTree]:
    return lambda module: CertificateTree(type(module).__name__, certificate, reason)


rule(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)(_leaf(IDENTITY, "identity in evaluation"))
rule(nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)(
    _leaf(NONEXPANSIVE, "a permutation of entries")
)


@rule(nn.Sequential)
def _sequential(module: nn.Sequential) -> CertificateTree:
    children = tuple(certify(child) for child in module)
    total = compose([child.certificate for child in children])
    return CertificateTree("Sequential", total, "composition", children)
