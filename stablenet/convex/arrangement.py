"""The cells of a central hyperplane arrangement, exactly: each is a pointed cone, and all of them surround its extreme rays.

Source: [Zaslavsky1975] for their number; the way over the rays is docs/theorems.md, X1. A sign that rounding could turn is
decided by an integer determinant.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from math import comb

import numpy as np
import numpy.typing as npt

from stablenet.rounding import UNIT_ROUNDOFF

Signs = npt.NDArray[np.int8]
Reals = npt.NDArray[np.float64]
Rational = list[Fraction]
CHUNK = 2048


def cells(rows: list[Rational]) -> tuple[Signs, Reals]:
    """Every sign vector of R g over the g where no row vanishes, with such a g; R has nonzero rows that are not parallel.

    Shapes: m rows of length d that span R^d, to signs (cells, m) in {-1, 1} and points (cells, d).
    """
    m, d = len(rows), len(rows[0])
    scaled = [_primitive(row) for row in rows]
    unit = np.array([[float(Fraction(v, max(map(abs, row)))) for v in row] for row in scaled])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    known: dict[tuple[int, ...], Signs] = {}
    found: dict[bytes, int] = {}
    signs: list[Signs] = []
    points: list[Reals] = []
    for rays, ray_signs in _rays(scaled, unit):
        for ray, sign in zip(rays, ray_signs, strict=True):
            incident = tuple(np.flatnonzero(sign == 0).tolist())
            for local in _around(rows, incident, d, known):
                cell = sign.copy()
                cell[list(incident)] = local
                for s in (1, -1):
                    key = (s * cell).tobytes()
                    if key not in found:
                        found[key] = len(signs)
                        signs.append((s * cell).astype(np.int8))
                        points.append(np.zeros(d))
                    points[found[key]] += s * ray
    return np.array(signs, dtype=np.int8).reshape(-1, m), np.array(points).reshape(-1, d)


def independent_columns(rows: list[Rational]) -> list[int]:
    """The first columns that span all of them, by elimination in rationals."""
    left, chosen = [row[:] for row in rows], []
    for j in range(len(rows[0]) if rows else 0):
        pivot = next((row for row in left if row[j]), None)
        if pivot is None:
            continue
        chosen.append(j)
        left = [_eliminated(row, pivot, j) if row[j] else row for row in left if row is not pivot]
    return chosen


def _eliminated(row: Rational, pivot: Rational, j: int) -> Rational:
    factor = row[j] / pivot[j]
    return [a - factor * b for a, b in zip(row, pivot, strict=True)]


def _primitive(row: Rational) -> list[int]:
    """The same row, times a positive number, in integers without a common divisor."""
    denominator = int(np.lcm.reduce(np.array([v.denominator for v in row], dtype=object)))
    whole = [int(v * denominator) for v in row]
    divisor = int(np.gcd.reduce(np.array(whole, dtype=object))) or 1
    return [v // divisor for v in whole]


def _rays(rows: list[list[int]], unit: Reals) -> Iterator[tuple[Reals, Signs]]:
    """Unit rays on which d - 1 independent rows vanish, and the signs of all rows there, in chunks; each ray once."""
    m, d = unit.shape
    margin = 4 * d**3 * 2.0**d * UNIT_ROUNDOFF  # of a determinant with rows of norm 1: growth 2^(d-1), d rows, twice
    subsets = itertools.combinations(range(m), d - 1)
    seen: set[tuple[int, ...]] = set()
    while chunk := list(itertools.islice(subsets, CHUNK)):
        index = np.array(chunk, dtype=np.int64).reshape(len(chunk), d - 1)
        normals = unit[index]
        minors = [np.linalg.det(np.delete(normals, k, axis=2)) * (-1) ** k for k in range(d)]
        rays = np.stack(minors, axis=1)
        values = rays @ unit.T
        signs = np.where(np.abs(values) > margin, np.sign(values), 0).astype(np.int8)
        keep = []
        for b, subset in enumerate(chunk):
            for i in set(np.flatnonzero(signs[b] == 0).tolist()) - set(subset):
                signs[b, i] = _sign_of_determinant([rows[i], *(rows[j] for j in subset)])
            incident = tuple(np.flatnonzero(signs[b] == 0).tolist())
            if len(incident) == m or incident in seen:  # dependent rows, or a ray that is known
                continue
            if len(incident) > d - 1:
                seen.add(incident)
            keep.append(b)
        lengths = np.linalg.norm(rays[keep], axis=1, keepdims=True)
        yield rays[keep] / np.maximum(lengths, np.finfo(float).tiny), signs[keep]


def _around(rows: list[Rational], incident: tuple[int, ...], d: int, known: dict[tuple[int, ...], Signs]) -> Signs:
    """The sign vectors of the rows that vanish on a ray, at the points near it."""
    if len(incident) == d - 1:
        key = tuple(range(d - 1))
        if key not in known:
            known[key] = np.array(list(itertools.product((1, -1), repeat=d - 1)), dtype=np.int8).reshape(2 ** (d - 1), d - 1)
        return known[key]
    if incident not in known:
        local = [rows[i] for i in incident]
        columns = independent_columns(local)
        known[incident] = cells([[row[j] for j in columns] for row in local])[0]
    return known[incident]


def _sign_of_determinant(matrix: list[list[int]]) -> int:
    """By fraction-free elimination [Bareiss1968]."""
    a, sign, previous = [row[:] for row in matrix], 1, 1
    for k in range(len(a) - 1):
        pivot = next((i for i in range(k, len(a)) if a[i][k]), None)
        if pivot is None:
            return 0
        if pivot != k:
            a[k], a[pivot], sign = a[pivot], a[k], -sign
        for i in range(k + 1, len(a)):
            a[i] = [0 if j <= k else (a[i][j] * a[k][k] - a[i][k] * a[k][j]) // previous for j in range(len(a))]
        previous = a[k][k]
    return sign * ((a[-1][-1] > 0) - (a[-1][-1] < 0))


def number_of_cells(n: int, d: int) -> int:
    """2 sum_{k<d} C(n-1, k), for n >= 1 hyperplanes through the origin of R^d in general position [Zaslavsky1975]."""
    return 2 * sum(comb(n - 1, k) for k in range(d))
