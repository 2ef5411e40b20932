"""Gates: the activation patterns 1[X g >= 0] of one neuron on the data, all of them or a sample.

Source: [PilanciErgen2020], section 2; the number of patterns is [Zaslavsky1975].
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from stablenet.convex.arrangement import cells, independent_columns, number_of_cells

MOST = 200_000


@dataclass(frozen=True)
class Gates:
    """Activation patterns, no two equal.

    Parameters
    ----------
    patterns : (gates, n) bool, D_i = diag(patterns[i]).
    vectors : (gates, d) with patterns = 1[X vectors >= 0], so that new data can be gated; None where they are not known.
    complete : whether every cell of the arrangement of X's hyperplanes is here.

    Raises
    ------
    ValueError : no gate at all, or shapes that do not match.
    """

    patterns: Tensor
    vectors: Tensor | None
    complete: bool

    def __post_init__(self) -> None:
        if self.patterns.ndim != 2 or self.patterns.dtype != torch.bool or not len(self.patterns):
            raise ValueError(
                f"patterns must be (gates, n) bool with at least one gate, got {tuple(self.patterns.shape)} of "
                f"{self.patterns.dtype}: take gates.enumerate(X) or gates.sample(X, number)"
            )
        if self.vectors is not None and len(self.vectors) != len(self.patterns):
            raise ValueError(f"{len(self.patterns)} patterns need as many vectors, got {len(self.vectors)}")

    def __len__(self) -> int:
        return len(self.patterns)

    def at(self, index: Tensor) -> Gates:
        """Those of some indices (k,): a part, so not complete unless it is all of them."""
        vectors = None if self.vectors is None else self.vectors[index]
        return Gates(self.patterns[index], vectors, self.complete and len(index) == len(self))


def count(n: int, d: int) -> int:
    """2 sum_{k<d} C(n-1, k): the cells of n hyperplanes through the origin in general position in R^d [Zaslavsky1975].

    Raises
    ------
    ValueError : n < 1 or d < 1.
    """
    if n < 1 or d < 1:
        raise ValueError(f"n and d must be at least 1, got n={n}, d={d}")
    return number_of_cells(n, d)


def enumerate(X: Tensor, *, most: int = MOST) -> Gates:  # noqa: A001 - its public name
    """Every cell of the arrangement of the hyperplanes x_k . g = 0, exactly, with a vector in its interior.

    Parameters
    ----------
    X : (n, d), finite. Rows may be equal, parallel, zero or dependent: the cells are those of the hyperplanes as they are.
    most : refuse when more cells than this are to be expected.

    Returns
    -------
    Gates with complete = True, in lexicographic order of their patterns; a zero row is always on. `vectors` is None where
    rounding turns a sign of X vectors, as it can in cells that are too thin for floats.

    Raises
    ------
    ValueError : X is no finite real matrix, vanishes, or has too many cells; the message says how many.
    """
    _require_data(X)
    rows = [[Fraction(v) for v in row] for row in X.detach().cpu().double().tolist()]
    parents, turns, distinct = _directions(rows)
    if not distinct:
        raise ValueError("every row of X is zero, so there is no hyperplane: nothing depends on the gates")
    columns = independent_columns(distinct)
    expected = number_of_cells(len(distinct), len(columns))
    if expected > most:
        raise ValueError(
            f"{len(distinct)} hyperplanes in {len(columns)} dimensions have up to {expected} cells, more than most={most}: "
            "take gates.sample(X, number)"
        )
    signs, points = cells([[row[j] for j in columns] for row in distinct])
    on = np.ones((len(signs), len(rows)), dtype=bool)
    for k, (parent, turn) in zip(range(len(rows)), zip(parents, turns, strict=True), strict=True):
        if turn:
            on[:, k] = turn * signs[:, parent] > 0
    order = np.lexsort(on.T[::-1])
    patterns = torch.from_numpy(on[order]).to(X.device)
    return Gates(patterns, _interior(X, patterns, points[order], columns), True)


def sample(X: Tensor, number: int, *, generator: torch.Generator | None = None) -> Gates:
    """The patterns of `number` Gaussian vectors, duplicates and the pattern without any data removed.

    Raises
    ------
    ValueError : X is no finite real matrix, number < 1, or no drawn pattern has data.
    """
    _require_data(X)
    if number < 1:
        raise ValueError(f"the number of gates must be at least 1, got {number}")
    device = "cpu" if generator is None else generator.device
    vectors = torch.randn(number, X.shape[1], generator=generator, dtype=X.dtype, device=device).to(X.device)
    patterns = vectors @ X.T >= 0
    _, first = np.unique(np.packbits(patterns.cpu().numpy(), axis=1), axis=0, return_index=True)
    keep = torch.from_numpy(np.sort(first)).to(X.device)
    keep = keep[patterns[keep].any(1)]
    return Gates(patterns[keep], vectors[keep], False)


def _require_data(X: Tensor) -> None:
    if X.ndim != 2 or not X.dtype.is_floating_point or not X.numel() or not torch.isfinite(X).all():
        raise ValueError(f"X must be a finite real matrix (n, d), got {tuple(X.shape)} of {X.dtype} or NaN or infinity in it")


def _directions(rows: list[list[Fraction]]) -> tuple[list[int], list[int], list[list[Fraction]]]:
    """Of each row its direction's number and the sign against it (0 for a zero row), and the directions."""
    seen: dict[tuple[Fraction, ...], int] = {}
    parents, turns = [], []
    for row in rows:
        lead = next((v for v in row if v), Fraction(0))
        key = tuple(v / lead for v in row) if lead else ()
        parents.append(seen.setdefault(key, len(seen)) if lead else 0)
        turns.append((lead > 0) - (lead < 0))
    return parents, turns, [list(key) for key in seen]


def _interior(X: Tensor, patterns: Tensor, points: np.ndarray, columns: list[int]) -> Tensor | None:
    """Vectors in the row space of X with these patterns, of length one."""
    inside = torch.from_numpy(points).to(X.device)
    double = X.detach().double()
    vectors = torch.zeros(len(points), X.shape[1], dtype=torch.float64, device=X.device)
    vectors[:, columns] = inside
    if len(columns) < X.shape[1]:
        vectors = vectors @ (torch.linalg.pinv(double) @ double).T
    vectors = (vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)).to(X.dtype)
    values = vectors @ X.T
    agree = torch.equal((values >= 0) | (X == 0).all(1), patterns)
    return vectors if agree else None
