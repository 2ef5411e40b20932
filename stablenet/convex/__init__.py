"""Two- and three-layer ReLU networks trained to certified global optimality, as convex programs.

Source: [PilanciErgen2020; ErgenPilanci2021; Mishkin2022]. Gates, the program as a value, and solvers to `run` on it:
`run(Program(X, y, gates.sample(X, 200), Squared(1 / n), GroupNorm(1e-3)), Newton())`.
"""

from stablenet.convex import gates, networks
from stablenet.convex.datafits import Datafit, Hinge, Logistic, Squared, SquaredHinge
from stablenet.convex.gates import Gates
from stablenet.convex.penalties import GroupNorm
from stablenet.convex.program import Optimum, Program
from stablenet.convex.solvers import Columns, Conic, Fista, Newton, Reweighting, path, run

__all__ = [
    "Columns",
    "Conic",
    "Datafit",
    "Fista",
    "Gates",
    "GroupNorm",
    "Hinge",
    "Logistic",
    "Newton",
    "Optimum",
    "Program",
    "Reweighting",
    "Squared",
    "SquaredHinge",
    "gates",
    "networks",
    "path",
    "run",
]
