"""Convex networks as estimators in scikit-learn's conventions, which is needed here and nowhere else.

Source: [Pedregosa2011].
"""

from stablenet.convex.estimators.models import (
    ConvexReLUClassifier,
    ConvexReLURegressor,
    GatedReLUClassifier,
    GatedReLURegressor,
)
from stablenet.convex.estimators.search import BetaSearchCV

__all__ = ["BetaSearchCV", "ConvexReLUClassifier", "ConvexReLURegressor", "GatedReLUClassifier", "GatedReLURegressor"]
