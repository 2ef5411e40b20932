"""What the estimators share: checks, fitting, a path over beta, and prediction.

Source: scikit-learn's conventions [Pedregosa2011].
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from stablenet.convex.datafits import Datafit, Hinge, Logistic, Squared, SquaredHinge
from stablenet.convex.fitting import Fitted, Posed, Setting, at_weight, largest_weight, pose, solve
from stablenet.convex.penalties import GroupNorm

Reals = npt.NDArray[np.float64]
LOSSES: dict[str, Datafit] = {
    "squared": Squared(),
    "logistic": Logistic(),
    "hinge": Hinge(),
    "squared_hinge": SquaredHinge(),
}
ROWS = 1024
"""Predicted at once."""


class ConvexEstimator(BaseEstimator):
    """What a concrete class adds: its parameters, whether it is `gated`, and how targets become numbers.

    Attributes
    ----------
    objective_ : the loss's sum plus beta times the sum of lengths.
    lower_bound_, gap_ : no network of this kind goes below, objective_ minus that; None where not all cells were there.
    program_gap_ : objective_ minus a proved lower bound over the gates that were there; always known.
    lipschitz_ : a proved upper bound in the l2 norm; None for gated networks, which jump.
    network_ : a torch module in double precision.
    """

    gated: ClassVar[bool]

    def fit(self, X: Any, y: Any) -> Self:
        """Train on X (n, d) and y (n,), or (n, outputs) for regression.

        Raises
        ------
        ValueError : data or a parameter that cannot be used; the message says what to do instead.
        """
        setting, program = self._posed(X, y)
        return self._take(setting, solve(program, setting))

    def path(self, X: Any, y: Any, betas: Sequence[float]) -> Iterator[Self]:
        """A fitted clone for every beta, on the same gates, each begun at the one before: fastest in descending order."""
        model = clone(self)
        setting, program = model._posed(X, y)
        start = None
        for beta in betas:
            program, setting = at_weight(program, setting, float(beta))
            fitted = solve(program, setting, start=start)
            start = fitted.variables
            yield copy.copy(model).set_params(beta=float(beta))._take(setting, fitted)

    def largest_beta(self, X: Any, y: Any) -> float:
        """From this beta on a network with gates as they are drawn for this data is zero; of three layers that of two."""
        return largest_weight(clone(self)._posed(X, y)[1])

    def to_torch(self) -> nn.Module:
        """A copy of the network, (batch, d) to (batch, outputs) in double precision: of classifiers the decision function."""
        check_is_fitted(self)
        return copy.deepcopy(self.network_)

    def _posed(self, X: Any, y: Any) -> tuple[Setting, Posed]:
        setting = self._setting()
        features, targets = self._numbers(X, y)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        program = pose(features, targets, setting, generator=torch.Generator().manual_seed(seed))
        if len(program.gates) == 1 and setting.gates != 1 and features.shape[1] > 1:
            warnings.warn(
                "all sampled gates are equal, so that the network is linear: center the features, set fit_intercept, or take "
                "more gates",
                UserWarning,
                stacklevel=3,
            )
        return setting, program

    def _setting(self) -> Setting:
        """The parameters, checked."""
        for name in ("beta", "tol", "max_lipschitz"):
            value = getattr(self, name, None)
            if isinstance(value, bool) or not isinstance(value, Real | None) or (value is None and name != "max_lipschitz"):
                raise ValueError(f"{name} must be a number, got {value!r}")
        loss = getattr(self, "loss", "squared")
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        penalty = GroupNorm(float(self.beta), getattr(self, "max_lipschitz", None))
        number: Any = int(self.gates) if isinstance(self.gates, Integral) else self.gates
        depth, width = getattr(self, "depth", 2), getattr(self, "width", 2)
        return Setting(LOSSES[loss], penalty, number, self.gated, depth, width, bool(self.fit_intercept), float(self.tol))

    def _numbers(self, X: Any, y: Any) -> tuple[Tensor, Tensor]:
        """X (n, d) and y (n, outputs) in double precision."""
        raise NotImplementedError

    def _take(self, setting: Setting, fitted: Fitted) -> Self:
        if fitted.program_gap > 10 * setting.tolerance * abs(fitted.objective) + 1e-12:
            warnings.warn(
                f"stopped at a gap of {fitted.program_gap:.2e} at an objective of {fitted.objective:.6g}, more than tol="
                f"{setting.tolerance:g} asks for: scale the features, or take a larger beta or tol",
                ConvergenceWarning,
                stacklevel=3,
            )
        self.network_, self.objective_, self.lower_bound_ = fitted.network, fitted.objective, fitted.lower_bound
        self.gap_ = None if fitted.lower_bound is None else max(fitted.objective - fitted.lower_bound, 0.0)
        self.program_gap_, self.lipschitz_ = fitted.program_gap, fitted.lipschitz
        return self

    def _outputs(self, X: Any) -> Reals:
        """(n, outputs)."""
        check_is_fitted(self)
        X = torch.tensor(validate_data(self, X, reset=False, dtype=np.float64))
        with torch.no_grad():
            return torch.cat([self.network_(part) for part in X.split(ROWS)]).numpy()


class ConvexRegressor(RegressorMixin, ConvexEstimator):
    """Targets as they are, one or several."""

    def predict(self, X: Any) -> Reals:
        """(n,) or (n, outputs), as y was."""
        Z = self._outputs(X)
        return Z[:, 0] if self._flat else Z

    def _numbers(self, X: Any, y: Any) -> tuple[Tensor, Tensor]:
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2)
        self._flat = y.ndim == 1
        return torch.tensor(X), torch.tensor(y.reshape(len(X), -1).astype(np.float64))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _has_probabilities(model: Any) -> Literal[True]:
    if model.loss != "logistic":
        raise AttributeError(f'loss={model.loss!r} has no probabilities: take loss="logistic", or decision_function')
    return True


class ConvexClassifier(ClassifierMixin, ConvexEstimator):
    """One output for two classes, else one against the rest for every class."""

    def decision_function(self, X: Any) -> Reals:
        """(n,) for two classes, positive for the second one; (n, classes) for more."""
        Z = self._outputs(X)
        return Z[:, 0] if Z.shape[1] == 1 else Z

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Labels (n,)."""
        Z = self._outputs(X)
        return self.classes_[(Z[:, 0] > 0).astype(int) if Z.shape[1] == 1 else Z.argmax(1)]

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> Reals:
        """(n, classes), for loss="logistic" only; of more than two classes the probabilities against the rest, normalized."""
        P = torch.sigmoid(torch.from_numpy(self._outputs(X))).clamp_min(1e-300).numpy()
        return np.hstack([1 - P, P]) if P.shape[1] == 1 else P / P.sum(1, keepdims=True)

    def _numbers(self, X: Any, y: Any) -> tuple[Tensor, Tensor]:
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"one class only, {self.classes_[0]}, in y: a classifier needs at least two classes")
        wanted = np.arange(len(self.classes_)) if len(self.classes_) > 2 else np.array([1])
        return torch.tensor(X), torch.tensor(np.where(index.reshape(-1, 1) == wanted, 1.0, -1.0))
