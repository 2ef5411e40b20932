"""The estimators keep scikit-learn's conventions, say what is certified, and keep their Lipschitz bound after export."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import stablenet
from stablenet.certificate import NotCertified
from stablenet.convex import (
    BetaSearchCV,
    ConvexReLUClassifier,
    ConvexReLURegressor,
    GatedReLUClassifier,
    GatedReLURegressor,
    GroupNorm,
    Logistic,
    Program,
    Squared,
    gates,
    networks,
)
from stablenet.convex.solvers.conic import conic_solution

SMALL = {"gates": 6, "tol": 1e-3, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore:all sampled gates are equal:UserWarning")


def data(n: int = 8, d: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    g = np.random.default_rng(seed)
    X = g.standard_normal((n, d))
    return X, X[:, 0] * np.abs(X[:, 1])


SEARCHES = [
    BetaSearchCV(GatedReLURegressor(**SMALL), betas=2, cv=2),
    BetaSearchCV(GatedReLUClassifier(loss="squared", **SMALL), betas=2, cv=2),
]


@parametrize_with_checks([GatedReLURegressor(**SMALL), GatedReLUClassifier(loss="squared_hinge", **SMALL), *SEARCHES])
def test_scikit_learn_s_own_checks(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.mark.slow  # 200 and 300 rows, a minute: the cones are projected onto one by one
@parametrize_with_checks([ConvexReLURegressor(**SMALL), ConvexReLUClassifier(loss="squared_hinge", **SMALL)])
def test_scikit_learn_s_own_checks_with_cones(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("intercept", [False, True])
def test_all_gates_are_certified_and_agree_with_clarabel(loss: str, intercept: bool) -> None:
    X, y = data()
    kwargs: dict[str, Any] = {"gates": "all", "fit_intercept": intercept}
    labels = loss != "squared"
    model = ConvexReLUClassifier(0.2, loss=loss, **kwargs) if labels else ConvexReLURegressor(0.2, **kwargs)
    model.fit(X, y > 0 if labels else y)
    assert model.gap_ is not None and model.gap_ <= 1e-6 * model.objective_
    A = torch.tensor(np.hstack([X, np.ones((len(X), 1))]) if intercept else X)
    targets = torch.tensor(np.where(y > 0, 1.0, -1.0) if labels else y)[:, None]
    program = Program(A, targets, gates.enumerate(A), Logistic() if labels else Squared(), GroupNorm(0.2), cones=True)
    assert model.objective_ == pytest.approx(conic_solution(program)[1], rel=1e-6)
    network = model.to_torch()
    Z = network(torch.tensor(X))
    value = float(program.datafit.value(Z, targets)) + 0.2 * networks.weight_decay(network)
    assert value == pytest.approx(model.objective_, rel=1e-8)
    if labels:
        assert model.decision_function(X) == pytest.approx(Z[:, 0].numpy())
    else:
        assert model.predict(X) == pytest.approx(Z[:, 0].numpy())


def test_a_bound_holds_after_export_and_costs() -> None:
    X, y = data()
    free = ConvexReLURegressor(0.01, gates="all").fit(X, y)
    held = ConvexReLURegressor(0.01, gates="all", max_lipschitz=0.5).fit(X, y)
    assert free.lipschitz_ > 1 and stablenet.certify(held.to_torch()).lipschitz == held.lipschitz_ <= 0.5
    assert held.objective_ > free.objective_ and held.gap_ <= 1e-6 * held.objective_
    with torch.no_grad():
        residual = float((held.to_torch()(torch.tensor(X))[:, 0] - torch.tensor(y)).square().sum()) / 2
    assert residual + 0.01 * networks.weight_decay(held.to_torch()) == pytest.approx(held.objective_, rel=1e-7)


def test_a_sample_is_not_certified_unless_the_network_is_gated() -> None:
    X, y = data(30, 4)
    relu = ConvexReLURegressor(gates=5, tol=1e-4, random_state=0).fit(X, y)
    assert relu.lower_bound_ is None and relu.gap_ is None and relu.program_gap_ <= 1e-3 * relu.objective_
    gated = GatedReLURegressor(gates=5, random_state=0).fit(X, y)
    assert gated.gap_ <= 1e-6 * gated.objective_ and gated.lipschitz_ is None
    for model in (gated, GatedReLURegressor(gates=5, fit_intercept=True, random_state=0).fit(X, y)):
        with pytest.raises(NotCertified, match="discontinuous"):
            stablenet.certify(model.to_torch())
    few = ConvexReLURegressor(gates=100).fit(*data(6, 2))
    assert few.gap_ is not None  # no more cells than gates: all are taken


def test_three_layers_are_not_worse_than_two() -> None:
    pytest.importorskip("cvxpy")
    X, y = data(5, 2, seed=3)
    two = ConvexReLURegressor(0.05, gates="all").fit(X, y)
    for intercept in (False, True):
        three = ConvexReLURegressor(0.05, depth=3, gates="all", tol=1e-6).fit(X[:4], y[:4])
        assert three.gap_ <= 1e-5 and three.to_torch().depth == 3
        if not intercept:
            assert three.objective_ <= ConvexReLURegressor(0.05, gates="all").fit(X[:4], y[:4]).objective_ + 1e-6
    assert two.to_torch().depth == 2


def test_several_outputs_and_several_classes() -> None:
    X, y = data(40, 3)
    both = np.stack([y, -2 * y], 1)
    for model in (ConvexReLURegressor(gates=5, tol=1e-4), GatedReLURegressor(gates=20, fit_intercept=True)):
        assert model.fit(X, both).predict(X).shape == (40, 2) and model.score(X, both) > 0.8
    names = np.array(["low", "middle", "high"])[np.digitize(y, [-0.3, 0.3])]
    model = GatedReLUClassifier(gates=20, fit_intercept=True).fit(X, names)
    assert model.decision_function(X).shape == (40, 3) and model.score(X, names) > 0.8
    assert model.predict_proba(X).sum(1) == pytest.approx(1)
    assert not hasattr(GatedReLUClassifier(loss="hinge"), "predict_proba")


def test_a_path_ends_where_fits_end() -> None:
    X, y = data(30, 4)
    model = GatedReLURegressor(gates=20, tol=1e-9, random_state=0)
    largest = model.largest_beta(X, y)
    betas = largest * np.geomspace(1, 1e-2, 4)
    path = list(model.path(X, y, betas))
    assert [m.beta for m in path] == list(betas) and not path[0].predict(X).any()
    for fitted in path[1:]:
        alone = clone(model).set_params(beta=fitted.beta).fit(X, y)
        assert fitted.objective_ == pytest.approx(alone.objective_, rel=1e-8)
        assert fitted.predict(X) == pytest.approx(alone.predict(X), abs=1e-4)


def test_the_search_scores_every_beta_on_every_fold() -> None:
    X, y = data(40, 3)
    folds = KFold(4, shuffle=True, random_state=0)
    search = BetaSearchCV(GatedReLURegressor(gates=20, random_state=0, tol=1e-8), betas=5, cv=folds).fit(X, y)
    assert search.scores_.shape == (5, 4) and (np.diff(search.betas_) < 0).all()
    k = int(search.scores_.mean(1).argmax())
    assert search.beta_ == search.betas_[k] and k > 0
    train, test = next(folds.split(X))
    alone = GatedReLURegressor(search.beta_ * 30 / 40, gates=20, random_state=0, tol=1e-8).fit(X[train], y[train])
    assert alone.score(X[test], y[test]) == pytest.approx(search.scores_[k, 0], abs=1e-5)
    pipeline = make_pipeline(StandardScaler(), search)
    assert cross_val_score(pipeline, X, y, cv=2).shape == (2,)
    with pytest.raises(ValueError, match="betas must be finite and positive"):
        BetaSearchCV(GatedReLURegressor(), betas=[0.0, 1.0]).fit(X, y)


X, Y = data(20, 3)
WIDE = np.random.default_rng(0).standard_normal((900, 300))


@pytest.mark.parametrize(
    ("model", "X", "y", "message"),
    [
        (ConvexReLURegressor(), X, Y[:-1], "inconsistent numbers of samples"),
        (ConvexReLURegressor(), np.where(X > 1, np.nan, X), Y, "contains NaN"),
        (ConvexReLURegressor(), X.astype(str).astype(object) + "a", Y, "could not convert string"),
        (ConvexReLURegressor(), X, [f"a{v}" for v in Y], "could not convert string|Unable to convert"),
        (ConvexReLURegressor(), np.ones((20, 3)), Y, "all 20 rows of X are equal"),
        (ConvexReLURegressor(beta=0.0), X, Y, "finite beta > 0, got 0"),
        (ConvexReLURegressor(beta="a"), X, Y, "beta must be a number, got 'a'"),
        (ConvexReLURegressor(tol=None), X, Y, "tol must be a number, got None"),
        (ConvexReLURegressor(max_lipschitz=-1.0), X, Y, "must be finite and positive, got -1"),
        (ConvexReLURegressor(gates="some"), X, Y, 'gates must be "all" or a number'),
        (ConvexReLURegressor(gates=0), X, Y, 'gates must be "all" or a number'),
        (ConvexReLURegressor(gates="all"), WIDE[:60, :8], WIDE[:60, 9], "up to .* cells"),
        (
            ConvexReLURegressor(gates="all"),
            np.random.default_rng(0).standard_normal((900, 300)),
            np.arange(900),
            "take a number",
        ),
        (ConvexReLURegressor(depth=4), X, Y, "depth must be 2 or 3, got 4"),
        (ConvexReLUClassifier(), X, np.ones(20), "one class only, 1.0, in y"),
        (ConvexReLUClassifier(loss="l1"), X, Y > 0, "loss must be one of squared, logistic"),
        (ConvexReLUClassifier(), X, Y, "Unknown label type"),
    ],
)
def test_bad_input_is_refused_in_one_line(model: Any, X: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)


def test_constant_features_duplicates_and_few_rows_are_fitted() -> None:
    X, y = data(6, 2)
    twice = ConvexReLURegressor(0.2, gates="all").fit(np.repeat(X, 2, 0), np.repeat(y, 2))
    once = ConvexReLURegressor(0.1, gates="all").fit(X, y)
    assert twice.objective_ == pytest.approx(2 * once.objective_, rel=1e-6) and twice.gap_ is not None
    constant = ConvexReLURegressor(0.1, gates="all").fit(np.hstack([X, np.ones((6, 1))]), y)
    assert constant.objective_ == pytest.approx(ConvexReLURegressor(0.1, gates="all", fit_intercept=True).fit(X, y).objective_)
    wide = ConvexReLURegressor(0.1, gates="all").fit(np.hstack([X[:3], X[3:]]), y[:3])
    assert wide.gap_ <= 1e-6 and wide.objective_ < (y[:3] ** 2).sum() / 2


def test_equal_gates_are_told() -> None:
    X, y = data(20, 3)
    with pytest.warns(UserWarning, match="all sampled gates are equal"):
        GatedReLURegressor(gates=2, random_state=0).fit(X + 1000, y)
