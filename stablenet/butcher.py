"""ButcherTableau: an explicit Runge-Kutta method as a frozen table; its radius and averagedness are computed from the table.

Source: [DahlquistJeltsch1979] for circle contractivity; averagedness is derived in docs/theorems.md (T2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import cast

import numpy as np

from stablenet.rounding import round_up

Number = int | float | Fraction
Row = tuple[Fraction, ...]
Matrix = tuple[Row, ...]


def _fraction(value: Number, where: str) -> Fraction:
    try:
        return Fraction(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{where} must be a finite number, got {value!r}") from None


@dataclass(frozen=True)
class ButcherTableau:
    """One explicit Runge-Kutta method: stages k_i = f(x + h sum_j a_ij k_j), step x + h sum_i b_i k_i.

    Parameters
    ----------
    a : square, strictly lower triangular (explicit methods only).
    b : weights, one per stage, summing to 1.
    name : shown in messages and cards.

    Entries are kept as exact rationals: pass integers, `fractions.Fraction` or floats (taken at their exact
    binary value, so that 1/3 is better given as `Fraction(1, 3)`).

    Raises
    ------
    ValueError : the table is not square, not explicit, not finite or not consistent (sum of b is not 1).
    """

    a: Sequence[Sequence[Number]]
    b: Sequence[Number]
    name: str = "custom"

    def __post_init__(self) -> None:
        b = tuple(_fraction(x, "an entry of b") for x in self.b)
        a = tuple(tuple(_fraction(x, "an entry of a") for x in row) for row in self.a)
        s = len(b)
        if s == 0 or len(a) != s or any(len(row) != s for row in a):
            raise ValueError(f"a must be {s} x {s} like b, got rows of lengths {[len(row) for row in a]}")
        if any(a[i][j] != 0 for i in range(s) for j in range(i, s)):
            raise ValueError("a must be strictly lower triangular: only explicit methods make a feed-forward block")
        if abs(sum(b, Fraction(0)) - 1) > Fraction(1, 10**12):
            raise ValueError(f"b must sum to 1 (consistency), got {float(sum(b))!r}")
        object.__setattr__(self, "a", a)
        object.__setattr__(self, "b", b)

    @property
    def exact(self) -> tuple[Matrix, Row]:
        """(a, b) as the rationals that they are kept as."""
        return cast(Matrix, self.a), cast(Row, self.b)

    @property
    def stages(self) -> int:
        """Number of evaluations of the vector field in one step."""
        return len(self.b)

    @property
    def c(self) -> tuple[Fraction, ...]:
        """Row sums of a."""
        return tuple(sum(row, Fraction(0)) for row in self.exact[0])

    @cached_property
    def order(self) -> int:
        """Classical order of accuracy, computed from the order conditions up to order 4."""
        a, b = np.array(self.a, dtype=object), np.array(self.b, dtype=object)
        c = a.sum(axis=1)
        conditions = {
            2: [(b @ c, 2)],
            3: [(b @ c**2, 3), (b @ (a @ c), 6)],
            4: [(b @ c**3, 4), ((b * c) @ (a @ c), 8), (b @ (a @ c**2), 12), (b @ (a @ (a @ c)), 24)],
        }
        order = 1
        for p, equations in conditions.items():
            if any(abs(value - Fraction(1, target)) > Fraction(1, 10**12) for value, target in equations):
                return order
            order = p
        return order

    @cached_property
    def _contractivity(self) -> tuple[Matrix, Row] | None:
        """(M, b) over the stages that count, M = BA + A^T B - b b^T; None when no radius exists."""
        (a, b), s = self.exact, self.stages
        m = [[b[i] * a[i][j] + b[j] * a[j][i] - b[i] * b[j] for j in range(s)] for i in range(s)]
        if any(x < 0 for x in b):
            return None
        keep = [i for i in range(s) if b[i] != 0]
        if any(m[i][j] != 0 for i in range(s) if b[i] == 0 for j in range(s)):
            return None
        return tuple(tuple(m[i][j] for j in keep) for i in keep), tuple(b[i] for i in keep)

    @cached_property
    def circle_contractivity_radius(self) -> float:
        """r = -1/lambda_min(S), S = B^(-1/2) M B^(-1/2); 0 when no disc is contractive. [DahlquistJeltsch1979]

        A step is nonexpansive for every field of the block when z = h L |A|^2 <= 2 r. The float returned is the
        largest one for which that holds exactly.
        """
        if self._contractivity is None:
            return 0.0
        m, b = self._contractivity
        w = np.sqrt(np.array(b, dtype=float))
        lowest = np.linalg.eigvalsh(np.array(m, dtype=float) / np.outer(w, w))[0]
        if lowest > -1e-14:
            return math.inf
        r = float(-1 / lowest)
        while self.is_nonexpansive(2 * math.nextafter(r, math.inf)):
            r = math.nextafter(r, math.inf)
        while not self.is_nonexpansive(2 * r):
            r = math.nextafter(r, 0.0)
        return r

    def is_nonexpansive(self, z: float) -> bool:
        """Whether z <= 2 r, decided exactly (M + (2/z) B is positive semidefinite, in rational arithmetic)."""
        return z == 0 or (self._contractivity is not None and _kappa(self, _checked(z)) is not None)

    def averagedness(self, z: float) -> float:
        """Averagedness of one step, alpha = 1/(1 + kappa), kappa = 1/(b^T (M + (2/z) B)^+ b), rounded up.

        Parameters
        ----------
        z : h L |A|^2 >= 0, the step size times the smoothness of the field.

        Raises
        ------
        ValueError : z is negative or not finite, or beyond 2 r, where the step is not nonexpansive.
        """
        z = _checked(z)
        if z == 0:
            return 0.0
        kappa = _kappa(self, z)
        if kappa is None:
            raise ValueError(
                f"a step of {self.name} with z={z:.6g} is not nonexpansive: z must lie in "
                f"[0, {2 * self.circle_contractivity_radius:.6g}]; shorten the step or take another tableau"
            )
        return round_up(1 / (1 + kappa))

    def lipschitz(self, z: float) -> float:
        """A Lipschitz constant of one step for any z >= 0: 1 within the circle, else a crude but sound bound.

        Beyond the circle: Euler max(1, z - 1) (the eigenvalues of a symmetric Jacobian); other methods, the
        triangle inequality over the stages.
        """
        z = _checked(z)
        if self.is_nonexpansive(z):
            return 1.0
        exact = Fraction(z)
        if self.stages == 1:
            return round_up(max(Fraction(1), exact - 1))
        a, b = self.exact
        stage: list[Fraction] = []
        for row in a:
            stage.append(exact * (1 + sum((abs(row[j]) * stage[j] for j in range(len(stage))), Fraction(0))))
        return round_up(1 + sum((abs(x) * k for x, k in zip(b, stage, strict=True)), Fraction(0)))

    def substeps(self, n: int) -> ButcherTableau:
        """n equal steps of this method written as one method."""
        if n < 1:
            raise ValueError(f"the number of substeps must be at least 1, got {n}")
        (a, b), s, zero = self.exact, self.stages, Fraction(0)
        rows = []
        for step in range(n):
            for i in range(s):
                done = [x / n for _ in range(step) for x in b]
                here = [x / n for x in a[i]]
                rows.append(done + here + [zero] * (s * (n - step - 1)))
        return ButcherTableau(rows, [x / n for _ in range(n) for x in b], f"{n} x {self.name}")


def _checked(z: float) -> float:
    z = float(z)
    if not (math.isfinite(z) and z >= 0):
        raise ValueError(f"z = h L |A|^2 must be a finite number >= 0, got {z}")
    return z


@lru_cache(maxsize=4096)
def _kappa(tableau: ButcherTableau, z: float) -> Fraction | None:
    """kappa of an admissible z, None beyond the circle or without one: exact LDL^T elimination of M + (2/z) B with b."""
    if tableau._contractivity is None:
        return None
    m, b = tableau._contractivity
    shift = 2 / Fraction(z)
    rows = [list(row) for row in m]
    for i, weight in enumerate(b):
        rows[i][i] += shift * weight
    right, quadratic, unbounded = list(b), Fraction(0), False
    n = len(b)
    for k in range(n):
        pivot = rows[k][k]
        if pivot < 0:
            return None
        if pivot == 0:
            if any(rows[k][j] != 0 for j in range(k + 1, n)):
                return None
            unbounded = unbounded or right[k] != 0
            continue
        quadratic += right[k] ** 2 / pivot
        for i in range(k + 1, n):
            factor = rows[i][k] / pivot
            if factor:
                right[i] -= factor * right[k]
                for j in range(k + 1, n):
                    rows[i][j] -= factor * rows[k][j]
    return Fraction(0) if unbounded else 1 / quadratic
