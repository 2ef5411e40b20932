"""beta by cross-validation along a warm-started path, for any estimator here.

Source: as LassoCV of [Pedregosa2011]: one grid for all folds, each fold solved from the largest beta down.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, indexable

Reals = npt.NDArray[np.float64]


def _rows(values: Any, index: Any) -> Any:
    return values.iloc[index] if hasattr(values, "iloc") else np.asarray(values)[index]


def _offers(name: str) -> Any:
    def check(search: Any) -> bool:
        getattr(search.best_estimator_ if hasattr(search, "best_estimator_") else search.estimator, name)
        return True

    return available_if(check)


class BetaSearchCV(MetaEstimatorMixin, BaseEstimator):
    """The estimator at the beta with the best mean score over the folds, of equal ones the largest, trained on all data.

    A fold of n_k of the n data takes beta n_k/n, so that loss and penalty weigh as they do on all.

    Parameters
    ----------
    estimator : one of this package's; its own beta is not looked at.
    betas : a number of them, from the one that makes the network zero down to `ratio` times that, or the betas themselves.
    cv, scoring : as of GridSearchCV.

    Attributes
    ----------
    beta_, best_score_, best_estimator_ : what was chosen; the estimator has the objective, gap and Lipschitz constant.
    betas_ : (betas,) descending.
    scores_ : (betas, folds).
    """

    def __init__(
        self,
        estimator: Any,
        *,
        betas: int | Sequence[float] = 10,
        ratio: float = 1e-3,
        cv: Any = None,
        scoring: Any = None,
    ) -> None:
        self.estimator = estimator
        self.betas = betas
        self.ratio = ratio
        self.cv = cv
        self.scoring = scoring

    def fit(self, X: Any, y: Any) -> Self:
        """Score every beta on every fold, then train at the best one."""
        X, y = indexable(X, y)
        splitter = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        score = check_scoring(self.estimator, scoring=self.scoring)
        betas = self._grid(X, y)
        columns = []
        for train, test in splitter.split(X, y):
            path = self.estimator.path(_rows(X, train), _rows(y, train), betas * (len(train) / len(y)))
            held = _rows(X, test), _rows(y, test)
            columns.append([score(model, *held) for model in path])
        self.betas_, self.scores_ = betas, np.array(columns).T
        means = self.scores_.mean(1)
        best = int(np.argmax(means))
        self.beta_, self.best_score_ = float(betas[best]), float(means[best])
        self.best_estimator_ = clone(self.estimator).set_params(beta=self.beta_).fit(X, y)
        for name in ("n_features_in_", "feature_names_in_", "classes_"):
            if hasattr(self.best_estimator_, name):
                setattr(self, name, getattr(self.best_estimator_, name))
        return self

    def _grid(self, X: Any, y: Any) -> Reals:
        if not isinstance(self.betas, int | np.integer):
            betas = np.sort(np.asarray(self.betas, dtype=np.float64).ravel())[::-1]
            if not len(betas) or not (np.isfinite(betas).all() and betas[-1] > 0):
                raise ValueError(f"betas must be finite and positive, got {self.betas}")
            return betas
        if self.betas < 1 or not 0 < self.ratio <= 1:
            raise ValueError(f"betas must be at least 1 and ratio in (0, 1], got {self.betas} and {self.ratio}")
        largest = self.estimator.largest_beta(X, y) or 1.0  # zero targets: any beta does
        return largest * np.geomspace(1.0, self.ratio, int(self.betas))

    @property
    def _best(self) -> Any:
        check_is_fitted(self)
        return self.best_estimator_

    def predict(self, X: Any) -> Any:
        """As the estimator."""
        return self._best.predict(X)

    @_offers("decision_function")
    def decision_function(self, X: Any) -> Any:
        """As the estimator."""
        return self._best.decision_function(X)

    @_offers("predict_proba")
    def predict_proba(self, X: Any) -> Any:
        """As the estimator."""
        return self._best.predict_proba(X)

    def score(self, X: Any, y: Any) -> float:
        """By `scoring`, or as the estimator."""
        check_is_fitted(self)
        return float(check_scoring(self.estimator, scoring=self.scoring)(self.best_estimator_, X, y))

    def __sklearn_tags__(self) -> Any:
        tags, own = super().__sklearn_tags__(), copy.deepcopy(get_tags(self.estimator))
        for name in ("estimator_type", "classifier_tags", "regressor_tags", "input_tags", "target_tags"):
            setattr(tags, name, getattr(own, name))
        return tags
