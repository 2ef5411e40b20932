"""Solvers of convex programs: each says what it needs, and yields iterates with a proved bound."""

from stablenet.convex.solvers.columns import Columns
from stablenet.convex.solvers.conic import Conic
from stablenet.convex.solvers.fista import Fista
from stablenet.convex.solvers.newton import Newton
from stablenet.convex.solvers.protocol import Iterate, Solver, path, require, run
from stablenet.convex.solvers.reweighting import Reweighting

__all__ = ["Columns", "Conic", "Fista", "Iterate", "Newton", "Reweighting", "Solver", "path", "require", "run"]
