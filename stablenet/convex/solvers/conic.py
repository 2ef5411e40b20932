"""The same programs through cvxpy and Clarabel: a reference for small problems, by an interior point.

Source: [PilanciErgen2020], equation 8, written down as it stands there; [DiamondBoyd2016; GoulartChen2024].
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import block_diag
from torch import Tensor

from stablenet.convex import cones
from stablenet.convex.datafits import Datafit, Hinge, Logistic, Squared, SquaredHinge
from stablenet.convex.penalties import GroupNorm
from stablenet.convex.program import Program
from stablenet.convex.solvers.protocol import Iterate

Reals = npt.NDArray[np.float64]


def import_cvxpy() -> Any:
    """The module cvxpy.

    Raises
    ------
    ImportError : it is not installed; the message says how to install it.
    """
    try:
        import cvxpy
    except ImportError as error:
        raise ImportError("this solver needs cvxpy: pip install 'stablenet[convex]', or take Newton()") from error
    return cvxpy


@dataclass(frozen=True)
class Conic:
    """One solution by Clarabel; its variables are projected onto the cones, so that their objective is an upper bound.

    Parameters
    ----------
    tolerance : Clarabel's, of feasibility and of both gaps.
    """

    tolerance: float = 1e-8
    needs: ClassVar[frozenset[str]] = frozenset()

    def iterate(self, program: Program, start: Tensor | None = None) -> Iterator[Iterate]:
        V, _ = conic_solution(program, tolerance=self.tolerance)
        if program.cones:
            s, i, c = torch.nonzero(torch.ones(program.groups, dtype=torch.bool)).T
            V[s, i, c] = cones.project(program.X, program.gates.patterns[i], V[s, i, c]).points
        if program.penalty.most is not None:
            V = V * min(1.0, program.penalty.most / max(float(program.lengths(V).sum()), 1e-300))
        R = program.datafit.gradient(program.predict(V), program.y)
        yield Iterate(V, program.objective(V), program.lower_bound(R), R)


def conic_solution(program: Program, *, tolerance: float = 1e-8) -> tuple[Tensor, float]:
    """Clarabel's variables, of the program's shape, and the objective as it says; errors as of `group_lasso`."""
    S, G, C, d = program.shape
    X, patterns = program.X.cpu().double().numpy(), program.gates.patterns.cpu().numpy()
    columns = np.concatenate([pattern[:, None] * X for pattern in patterns], 1)
    output = np.eye(C)
    parts = [np.kron(columns[:, i * d : (i + 1) * d], output[:, c : c + 1]) for i in range(G) for c in range(C)]
    A, B, size = np.concatenate(parts, 1), None, C * d
    if program.cones:
        normals = [np.where(pattern[:, None], X, -X) for pattern in patterns for _ in range(C)]
        A, B, size = np.hstack([A, -A]), block_diag(normals * S, format="csr"), d
    solution = group_lasso(program.datafit, program.penalty, program.y, A, B, size, tolerance)
    return torch.from_numpy(solution.variables.reshape(program.shape)).to(program.X), solution.value


class ConicSolution(NamedTuple):
    """U (groups, size), multipliers of B vec(U) >= 0 (None without B), and the objective as Clarabel says."""

    variables: Reals
    multipliers: Reals | None
    value: float


def group_lasso(
    datafit: Datafit, penalty: GroupNorm, y: Tensor, A: Any, B: Any, size: int, tolerance: float = 1e-8
) -> ConicSolution:
    """min f(A vec(U)) + penalty(lengths of the rows of U) subject to B vec(U) >= 0.

    Parameters
    ----------
    y : (n, outputs), whose entries A vec(U) gives row by row.
    A, B : (n outputs, groups size) and (constraints, groups size), dense or scipy.sparse; B may be None.

    Raises
    ------
    ImportError : cvxpy is not installed.
    RuntimeError : Clarabel gives up.
    """
    cp = import_cvxpy()
    U = cp.Variable((A.shape[1] // size, size))
    flat = cp.reshape(U, (A.shape[1],), order="C")
    total = cp.sum(cp.norm(U, 2, axis=1))
    cone = [] if B is None else [B @ flat >= 0]
    bound = [] if penalty.most is None else [total <= penalty.most]
    f = conic_datafit(datafit, A @ flat, y.cpu().double().numpy().ravel())
    problem = cp.Problem(cp.Minimize(f + penalty.weight * total), cone + bound)
    settings = {"tol_gap_abs": tolerance, "tol_gap_rel": tolerance, "tol_feas": tolerance}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an inaccurate solution is found out by its gap
        try:
            problem.solve(solver=cp.CLARABEL, **settings)
        except cp.error.SolverError as error:
            raise RuntimeError(f"Clarabel found no solution to {tolerance}: take a larger tolerance, or Newton()") from error
    if U.value is None:
        raise RuntimeError(f"Clarabel found no solution: {problem.status}")
    return ConicSolution(U.value, cone[0].dual_value if cone else None, float(problem.value))


def conic_datafit(datafit: Datafit, Z: Any, y: Any) -> Any:
    """A datafit of a cvxpy expression Z, of y's shape."""
    cp, weight = import_cvxpy(), datafit.weight
    if isinstance(datafit, Squared):
        return weight / 2 * cp.sum_squares(Z - y)
    margins = 1 - cp.multiply(y, Z)
    if isinstance(datafit, Logistic):
        return weight * cp.sum(cp.logistic(margins - 1))
    if isinstance(datafit, Hinge):
        return weight * cp.sum(cp.pos(margins))
    if isinstance(datafit, SquaredHinge):
        return weight / 2 * cp.sum_squares(cp.pos(margins))
    raise ValueError(f"no conic form of {type(datafit).__name__}: take Newton()")
