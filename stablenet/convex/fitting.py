"""From data and a setting to a trained network with its bound, at either depth: what the estimators do, without scikit-learn.

Source: [PilanciErgen2020; ErgenPilanci2021] for ReLU, [Mishkin2022] for gates; a constant column is the bias of every neuron.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from stablenet.certificate import CertificateTree, certify, rule
from stablenet.convex import gates
from stablenet.convex.datafits import Datafit
from stablenet.convex.deep import DeepProgram
from stablenet.convex.deep import with_weight as with_deep_weight
from stablenet.convex.gates import Gates
from stablenet.convex.networks import ConvexNetwork, export
from stablenet.convex.penalties import GroupNorm
from stablenet.convex.program import Program
from stablenet.convex.solvers import Columns, Newton, run
from stablenet.convex.solvers.layered import solve_three_layers

Posed = Program | DeepProgram
EXACT = 200_000
"""Entries of X up to which cells are counted exactly, duplicates aside, before an enumeration is refused."""


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Parameters
    ----------
    datafit, penalty : of the program; the penalty's bound is that of the Lipschitz constant.
    gates : "all", or a number: all where there are no more than that, else so many sampled.
    gated : whether the gates stay fixed: a group lasso instead of a ReLU network.
    depth, width : 2, or 3 with so many neurons in the first layer of a sub-network.
    intercept : whether neurons have biases, penalized like their other weights.
    tolerance : of the relative gap over the gates.

    Raises
    ------
    ValueError : gates that are no number, another depth, or a bound for gated networks, which jump.
    """

    datafit: Datafit
    penalty: GroupNorm
    gates: int | Literal["all"]
    gated: bool = False
    depth: int = 2
    width: int = 2
    intercept: bool = False
    tolerance: float = 1e-7

    def __post_init__(self) -> None:
        if self.gates != "all" and (not isinstance(self.gates, int) or self.gates < 1):
            raise ValueError(f'gates must be "all" or a number to sample, at least 1, got {self.gates!r}')
        if self.depth not in (2, 3) or (self.gated and self.depth == 3):
            raise ValueError(f"depth must be {'2 for gated networks' if self.gated else '2 or 3'}, got {self.depth!r}")
        if self.gated and self.penalty.most is not None:
            raise ValueError("a gated network jumps, so no bound holds its Lipschitz constant: take a ReLU network")


@dataclass(frozen=True)
class Fitted:
    """A trained network and what is proved of it.

    lower_bound : over all networks of its kind; None where not all cells were there.
    program_gap : objective minus a proved lower bound over these gates alone.
    variables : of a two-layer program; None for three layers.
    """

    network: nn.Module
    objective: float
    lower_bound: float | None
    program_gap: float
    variables: Tensor | None

    @property
    def lipschitz(self) -> float | None:
        """A proved upper bound; None for gated networks, which have none."""
        return certify(self.network).lipschitz if type(self.network) is ConvexNetwork else None


class WithConstant(nn.Module):
    """A network of x and a last coordinate 1; (batch, d) to (batch, outputs)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(torch.cat([x, torch.ones_like(x[:, :1])], 1))


@rule(WithConstant)
def _certify(module: WithConstant) -> CertificateTree:
    return certify(module.network)


def pose(X: Tensor, y: Tensor, setting: Setting, *, generator: torch.Generator | None = None) -> Posed:
    """The program of data X (n, d) and targets y (n, outputs), its gates drawn.

    Raises
    ------
    ValueError : data that no program takes, all rows equal, or too many cells for gates="all".
    """
    if bool((X[:1] == X).all()):
        raise ValueError(f"all {len(X)} rows of X are equal, n_samples = 1 in effect: there is nothing to learn from them")
    if setting.intercept:
        X = torch.cat([X, torch.ones_like(X[:, :1])], 1)
    drawn = _drawn(X, setting, generator)
    if setting.depth == 3:
        return DeepProgram(X, y, drawn, setting.datafit, setting.penalty, setting.width)
    return Program(X, y, drawn, setting.datafit, setting.penalty, cones=not setting.gated)


def _drawn(X: Tensor, setting: Setting, generator: torch.Generator | None) -> Gates:
    n, d = X.shape
    number, cells = setting.gates, gates.count(n, d)
    if number == "all" or cells <= number:
        if cells > gates.MOST and X.numel() > EXACT:
            raise ValueError(f'{n} data in {d} dimensions have up to {cells:.3g} cells: instead of gates="all" take a number')
        try:
            return gates.enumerate(X)
        except ValueError as error:
            raise ValueError(f"{error}; an estimator does with gates=number") from None
    return gates.sample(X, number, generator=generator)


def solve(program: Posed, setting: Setting, *, start: Tensor | None = None) -> Fitted:
    """The best network of a posed program; from a start if there is one, as at another beta, for two layers.

    Raises
    ------
    ImportError : three layers without cvxpy.
    ValueError : three layers with too many columns.
    """
    if isinstance(program, DeepProgram):
        deep = solve_three_layers(program, tolerance=setting.tolerance)
        trained = _with_bias(deep.network) if setting.intercept else deep.network
        return Fitted(trained.requires_grad_(False), deep.objective, deep.lower_bound, deep.program_gap, None)
    optimum = run(program, Newton(setting.tolerance) if setting.gated else Columns(setting.tolerance), start=start)
    if setting.gated:
        plain = export(program, optimum.variables)
        network: nn.Module = WithConstant(plain) if setting.intercept else plain
    else:
        network = export(program, optimum.variables, intercept=1.0 if setting.intercept else None)
    network.requires_grad_(False)
    return Fitted(network, optimum.objective, optimum.lower_bound, optimum.program_gap, optimum.variables)


def _with_bias(network: ConvexNetwork) -> ConvexNetwork:
    """The weights of the last coordinate, which is 1, as biases."""
    hidden = network.hidden.detach()
    inner = None if network.inner is None else network.inner.detach()
    return ConvexNetwork(hidden[..., :-1], inner, network.output.detach(), bias=hidden[..., -1])


def at_weight(program: Posed, setting: Setting, weight: float) -> tuple[Posed, Setting]:
    """The same with another beta."""
    other = replace(setting, penalty=replace(setting.penalty, weight=weight))
    if isinstance(program, DeepProgram):
        return with_deep_weight(program, weight), other
    return program.with_weight(weight), other


def largest_weight(program: Posed) -> float:
    """The smallest beta for which a network of zeros is known to be optimal; of three layers, that of two on the same gates."""
    if isinstance(program, DeepProgram):
        program = Program(program.X, program.y, program.gates, program.datafit, program.penalty, cones=True)
    return program.largest_weight
