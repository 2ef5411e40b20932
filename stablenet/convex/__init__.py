"""Two- and three-layer ReLU networks trained to certified global optimality, as convex programs.

Source: [PilanciErgen2020; ErgenPilanci2021; Mishkin2022]. Gates, the program as a value, and solvers to `run` on it:
`run(Program(X, y, gates.sample(X, 200), Squared(1 / n), GroupNorm(1e-3)), Newton())`.
"""

from typing import TYPE_CHECKING, Any

from stablenet.convex import gates, networks
from stablenet.convex.datafits import Datafit, Hinge, Logistic, Squared, SquaredHinge
from stablenet.convex.gates import Gates
from stablenet.convex.penalties import GroupNorm
from stablenet.convex.program import Optimum, Program
from stablenet.convex.solvers import Columns, Conic, Fista, Newton, Reweighting, path, run

if TYPE_CHECKING:
    from stablenet.convex.estimators import (
        BetaSearchCV,
        ConvexReLUClassifier,
        ConvexReLURegressor,
        GatedReLUClassifier,
        GatedReLURegressor,
    )

__all__ = [
    "BetaSearchCV",
    "Columns",
    "Conic",
    "ConvexReLUClassifier",
    "ConvexReLURegressor",
    "Datafit",
    "Fista",
    "GatedReLUClassifier",
    "GatedReLURegressor",
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


def __getattr__(name: str) -> Any:
    """The estimators, imported when asked for: they need scikit-learn."""
    if name not in ("BetaSearchCV", "ConvexReLUClassifier", "ConvexReLURegressor", "GatedReLUClassifier", "GatedReLURegressor"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from stablenet.convex import estimators
    except ImportError as error:
        raise ImportError(f"{name} needs scikit-learn ({error}): pip install 'stablenet[convex]'") from error
    return getattr(estimators, name)
