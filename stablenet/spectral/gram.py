"""The largest singular value over many matrices, from above: Frobenius norms of repeatedly squared Gram matrices, pruned.

Source: Gram iteration [Delattre2023]; rounding and pruning are docs/theorems.md, N2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from stablenet.rounding import SINGLE_ROUNDOFF, UNIT_ROUNDOFF, gram_margin, squarings_margin


def largest_singular_value(chunks: Iterable[Tensor]) -> float:
    """A certified upper bound of the largest singular value in batches of matrices, tight to 1e-3 (N2).

    With G the Gram matrix and m = 2^p: |G^m|_F^(1/m) is above lambda_max(G), (tr G^2m / tr G^m)^(1/m) below it.
    Matrices whose upper bound falls below the best lower bound of any are dropped.
    """
    upper, lower = 0.0, 0.0
    for symbol in chunks:
        gram = symbol @ symbol.mH if symbol.shape[1] <= symbol.shape[2] else symbol.mH @ symbol
        if gram.shape[1] == 1:
            upper = max(upper, float(gram.real.max()))
            lower = max(lower, upper)
            continue
        top, low = _largest_eigenvalue(gram, lower)
        upper, lower = max(upper, top), max(lower, low)
    # each singular value's square passed a product over the longer side and one squaring chain (N2)
    return math.sqrt(upper) * (1 + gram_margin((symbol.shape[1], symbol.shape[2])))


def _largest_eigenvalue(gram: Tensor, lower: float, slack: float = 2e-3) -> tuple[float, float]:
    """Bounds (above, below) of the largest eigenvalue among positive semidefinite Hermitian matrices.

    A first pass in single precision, with its rounding error added, drops most of the matrices.
    """
    if len(gram) > 16 and squarings_margin(gram.shape[1], SINGLE_ROUNDOFF) < 0.02:
        above, below = _squarings(gram.to(torch.complex64), lower, slack, rounds=5)
        lower = max(lower, below)
        gram = gram[above >= lower]
    above, lower = _squarings(gram, lower, slack, rounds=16)
    return (float(above.max()) if len(above) else lower), lower


def _squarings(gram: Tensor, lower: float, slack: float, *, rounds: int) -> tuple[Tensor, float]:
    """Upper bounds of each matrix's largest eigenvalue (0 where it is known to be below `lower`) and a lower bound of all."""
    inflation = 1 + squarings_margin(gram.shape[1], UNIT_ROUNDOFF if gram.dtype == torch.complex128 else SINGLE_ROUNDOFF)
    bounds = torch.zeros(len(gram), dtype=torch.float64)
    norm = _frobenius(gram)
    alive = torch.nonzero(norm * inflation >= max(lower, 1e-300)).flatten()
    gram, norm = gram[alive], norm[alive]
    log_scale, power = torch.zeros_like(norm), 1.0
    for _ in range(rounds):
        if not len(alive):
            break
        gram = torch.view_as_complex(torch.view_as_real(gram) * norm.reciprocal().to(gram.real.dtype)[:, None, None, None])
        log_scale = log_scale + norm.log() / power
        trace = gram.diagonal(dim1=1, dim2=2).real.sum(1).double()
        lower = max(lower, float((log_scale - trace.log() / power).max().exp()) / inflation)
        above = log_scale.exp() * inflation
        bounds[alive] = above
        if float(above.max()) <= lower * (1 + slack):
            break
        keep = above >= lower
        bounds[alive[~keep]] = 0.0
        if not keep.all():
            alive, gram, log_scale = alive[keep], gram[keep], log_scale[keep]
        gram = gram @ gram
        norm, power = _frobenius(gram), power * 2
    return bounds, lower


def _frobenius(batch: Tensor) -> Tensor:
    return torch.view_as_real(batch).flatten(1).norm(dim=1).double()
