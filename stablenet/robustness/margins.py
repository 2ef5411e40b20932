"""Normalized margins of homogeneous networks, and the largest one of two layers as a linear program over neurons.

Source: [Wei2019], sections 2 and 3. Statements and proofs: docs/theorems.md, M3 to M6.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stablenet.robustness.neurons import Neurons, dual_and_loss, entropy, largest_minimum, least_penalized
from stablenet.rules import Rules


class NotHomogeneous(ValueError):
    """Raised where a network is not known to be positively homogeneous in its parameters."""


homogeneity: Rules[Callable[[int], int]] = Rules(
    "degree of homogeneity",
    NotHomogeneous,
    "a normalized margin is defined for networks with f(t theta; x) = t^k f(theta; x); register one with "
    "@stablenet.robustness.margins.homogeneity({name}) (known: {known})",
)
"""By exact class: the degree of a layer's output, given that of its input, in all parameters scaled together."""


@homogeneity(nn.Linear)
def _linear(layer: nn.Linear) -> Callable[[int], int]:
    def degree(before: int) -> int:
        if layer.bias is not None and before > 0:
            raise NotHomogeneous("a bias behind the first layer scales unlike the rest: take bias=False there")
        return before + 1

    return degree


@homogeneity(nn.ReLU, nn.Flatten, nn.Identity)
def _kept(layer: nn.Module) -> Callable[[int], int]:
    return lambda before: before


@homogeneity(nn.Sequential)
def _sequential(layers: nn.Sequential) -> Callable[[int], int]:
    def degree(before: int) -> int:
        for layer in layers:
            before = homogeneity.of(layer)(before)
        return before

    return degree


@torch.no_grad()
def normalized_margin(network: nn.Module, X: Tensor, y: Tensor) -> float:
    """min_i m_i / |theta|^k, |theta| the norm of all parameters together, k the degree of homogeneity.

    m_i = y_i f(x_i) for one output and labels 1 and -1; f_(y_i) - max_(j != y_i) f_j for several and integer labels. A copy of
    the network computes in float64. Negative where a point is classified wrongly.

    Parameters
    ----------
    network : of dense layers, ReLU, Flatten and Identity in a Sequential, or of classes with a rule in `homogeneity`.
    X : (n, ...) inputs.
    y : (n,) labels.

    Raises
    ------
    NotHomogeneous : a layer without a rule, a bias behind the first layer, no layer with weights.
    ValueError : labels that do not match, inputs that are not finite, weights that are all zero.
    """
    degree = homogeneity.of(network)(0)
    if degree == 0:
        raise NotHomogeneous("the network has no weights to be normalized by")
    if not (len(X) == len(y) >= 1 and y.ndim == 1 and bool(torch.isfinite(X).all())):
        raise ValueError(f"X must be finite, one row a label: got {tuple(X.shape)} and labels {tuple(y.shape)}")
    precise = copy.deepcopy(network).double()
    norm = math.sqrt(sum(float(p.square().sum()) for p in precise.parameters()))
    if not 0 < norm < math.inf:
        raise ValueError(f"the weights have norm {norm}: a direction is needed")
    return float(_margins(precise(X.double()), y).min()) / norm**degree


def _margins(outputs: Tensor, y: Tensor) -> Tensor:
    """(n,): of one output by its sign, of several by the distance to the best other one."""
    if outputs[0].numel() == 1:
        _require_signs(y)
        return outputs.reshape(-1) * y
    classes = outputs.shape[1]
    if outputs.ndim != 2 or y.dtype.is_floating_point or not bool(((y >= 0) & (y < classes)).all()):
        raise ValueError(f"outputs {tuple(outputs.shape)} need integer labels in 0..{classes - 1}")
    own = outputs.gather(1, y[:, None].long())
    others = outputs.scatter(1, y[:, None].long(), -math.inf)
    return own[:, 0] - others.max(1).values


def _require_signs(y: Tensor) -> None:
    if not bool((y.abs() == 1).all()):
        raise ValueError(f"labels must be 1 and -1 for one output, got {sorted(set(y.tolist()))[:5]}")


@dataclass(frozen=True)
class MaximumMargin:
    """The largest normalized margin of two layers with ReLU on some points, between `margin` and `upper_bound`.

    margin : attained by `network()`.
    upper_bound : of every network of two layers, whatever its width; None unless all cells were priced.
    neurons : (k, d) float64, rows of norm 1, k <= n.
    outputs : (k,) float64, their weights in the second layer, |outputs| summing to 1.
    """

    margin: float
    upper_bound: float | None
    neurons: Tensor
    outputs: Tensor

    def network(self) -> nn.Sequential:
        """f(x) = sum_j outputs_j max(neurons_j.x, 0) in float64, each neuron's two weights of equal norm."""
        size = self.outputs.abs().sqrt()
        inner = nn.Linear(self.neurons.shape[1], len(size), bias=False, dtype=torch.float64)
        outer = nn.Linear(len(size), 1, bias=False, dtype=torch.float64)
        with torch.no_grad():
            inner.weight.copy_(size[:, None] * self.neurons)
            outer.weight.copy_(size * self.outputs.sign())
        return nn.Sequential(inner, nn.ReLU(), outer)


def max_margin(
    X: Tensor, y: Tensor, *, patterns: Tensor | None = None, complete: bool = True, tolerance: float = 1e-8
) -> MaximumMargin:
    """The largest normalized margin gamma* of sum_j u_j max(w_j.x, 0) over all weights and widths: half that of the l1-SVM.

    maximize gamma over a >= 0, sum a <= 1, with sum_j a_j s_j y_i max(w_j.x_i, 0) >= gamma, over signs s_j and unit vectors
    w_j, which enter as the dual prices them, cell by cell (M5); gamma* = gamma/2. The bound is rounded outward.

    Parameters
    ----------
    X : (n, d), y : (n,) labels 1 and -1; computed in float64 on the processor.
    patterns : (k, n) bool, rows 1[X w >= 0] of the cells; none: all 2^n, for n <= 12. `stablenet.convex.gates` enumerates them.
    complete : whether every cell is among the patterns; if not, `upper_bound` is None.
    tolerance : stop once the upper bound is within this share of the margin, or nothing improves on it.

    Raises
    ------
    ValueError : shapes that do not match, entries that are not finite, other labels, too many points for all patterns, patterns
        of another shape; points that no two-layer network separates, whose largest margin is 0.
    """
    cells = _neurons(X, y, patterns)
    upper, margin, amounts = math.inf, 0.0, np.zeros(0)
    weights = np.full(len(y), 1 / len(y))
    while upper > margin * (1 + tolerance):
        bound = cells.price(weights, at_least=max(margin, 0.0) * (1 + tolerance))
        upper = min(upper, math.nextafter(bound / math.nextafter(math.fsum(weights), 0), math.inf))
        if not cells.grown:
            break
        amounts, weights = largest_minimum(cells.columns)
        margin = cells.margin(amounts)
    if margin <= 0:
        raise ValueError(
            "no network of two layers separates the points: are there equal points (or points 0) of unequal labels?"
        )
    neurons, outputs = cells.used(amounts)
    return MaximumMargin(margin / 2, upper / 2 if complete else None, neurons, outputs)


@dataclass(frozen=True)
class RegularizedMargin:
    """The network of two layers, of any width, that minimizes mean log(1 + exp(-y f)) + weight |theta|^2.

    margin : its normalized margin on the points.
    size : |theta|^2.
    gap : by what share of it the objective is at most above the global minimum.
    """

    weight: float
    margin: float
    size: float
    gap: float


def margin_curve(
    X: Tensor, y: Tensor, weights: Sequence[float], *, patterns: Tensor | None = None, tolerance: float = 1e-6
) -> Iterator[RegularizedMargin]:
    """How the normalized margin of a weakly regularized network of two layers rises to the largest as weight -> 0 (M6).

    For each weight the global minimum, to `tolerance` where nothing else is said by its gap, by the neurons of `max_margin`
    with the loss in place of the margin: balanced neurons of amounts a cost 2 weight sum a. X, y as there.

    Parameters
    ----------
    patterns : as in `max_margin`; they must include every cell.

    Raises
    ------
    ValueError : as `max_margin`; weights that are not positive; a weight so large that the best network is 0.
    """
    if not weights or not all(0 < weight < math.inf for weight in weights):
        raise ValueError(f"weights must be positive numbers, got {list(weights)}")
    cells = _neurons(X, y, patterns)
    start = cells.price(np.full(len(y), 0.5 / len(y)), at_least=0.0)
    for weight in weights:
        if 2 * weight >= start:
            raise ValueError(f"with weight {weight} the best network is 0: take one below {start / 2:.3g}")
        gap, cells.grown = math.inf, True
        while gap > tolerance and cells.grown:
            amounts = least_penalized(cells.columns, 2 * weight)
            margin, (dual, loss) = cells.margin(amounts) / 2, dual_and_loss(cells.columns, amounts)
            priced = cells.price(dual, at_least=2 * weight)
            objective = loss + 2 * weight * float(amounts.sum())
            gap = 1 - entropy(dual * min(1.0, 2 * weight / priced)) / objective
        yield RegularizedMargin(weight, margin, 2 * float(amounts.sum()), gap)


def _neurons(X: Tensor, y: Tensor, patterns: Tensor | None) -> Neurons:
    if X.ndim != 2 or y.shape != X.shape[:1] or not len(y) or not bool(torch.isfinite(X).all()):
        raise ValueError(f"finite points (n, d) and labels (n,) are needed, got {tuple(X.shape)} and {tuple(y.shape)}")
    _require_signs(y)
    if patterns is None:
        if len(y) > 12:
            raise ValueError(
                f"all 2^{len(y)} patterns are too many: give those of the cells, patterns=gates.enumerate(X).patterns"
            )
        patterns = torch.arange(2 ** len(y))[:, None] >> torch.arange(len(y)) & 1 == 1
    if patterns.ndim != 2 or patterns.shape[1] != len(y) or patterns.dtype != torch.bool or not len(patterns):
        raise ValueError(f"patterns must be (cells, {len(y)}) bool, got {tuple(patterns.shape)} {patterns.dtype}")
    return Neurons(X.double().cpu().numpy(), y.double().cpu().numpy(), patterns.cpu().numpy())
