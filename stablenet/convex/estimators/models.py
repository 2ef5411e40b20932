"""The four estimators: ReLU networks at their global optimum, and gated ones; for numbers and for classes.

Source: [PilanciErgen2020], equation 8; [ErgenPilanci2021], theorem 1; [Mishkin2022] for gated networks.
"""

from __future__ import annotations

from typing import Any, Literal

from stablenet.convex.estimators.base import ConvexClassifier, ConvexRegressor


class ConvexReLURegressor(ConvexRegressor):
    """sum |f(x) - y|^2/2 + beta sum |u_g| at its least over all two-layer ReLU networks of the gates.

    Half the squares of f's weights sum to sum |u_g|, so beta is weight decay. In the terms of a mean over n data it is beta/n.

    Parameters
    ----------
    beta : > 0.
    depth : of the network.
    width : neurons in the first layer of a sub-network of three layers; two layers have as many as they need.
    max_lipschitz : a bound that lipschitz_ keeps, or None.
    gates : "all" activation patterns, for a certified optimum, or a number of them: all where there are no more, else sampled.
    fit_intercept : whether neurons have biases, penalized like their other weights.
    tol : the relative gap at which to stop.
    random_state : of the gates.

    Attributes
    ----------
    See `stablenet.convex.estimators.base.ConvexEstimator`.
    """

    gated = False

    def __init__(
        self,
        beta: float = 0.1,
        *,
        depth: int = 2,
        width: int = 2,
        max_lipschitz: float | None = None,
        gates: int | Literal["all"] = 50,
        fit_intercept: bool = False,
        tol: float = 1e-7,
        random_state: Any = None,
    ) -> None:
        self.beta = beta
        self.depth = depth
        self.width = width
        self.max_lipschitz = max_lipschitz
        self.gates = gates
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.random_state = random_state


class ConvexReLUClassifier(ConvexClassifier):
    """The same for classes, with labels 1 and -1; of more than two classes one output each.

    Parameters
    ----------
    loss : "logistic", "hinge", "squared_hinge" or "squared", summed.
    Others as of `ConvexReLURegressor`.
    """

    gated = False

    def __init__(
        self,
        beta: float = 0.1,
        *,
        loss: Literal["logistic", "hinge", "squared_hinge", "squared"] = "logistic",
        depth: int = 2,
        width: int = 2,
        max_lipschitz: float | None = None,
        gates: int | Literal["all"] = 50,
        fit_intercept: bool = False,
        tol: float = 1e-7,
        random_state: Any = None,
    ) -> None:
        self.beta = beta
        self.loss = loss
        self.depth = depth
        self.width = width
        self.max_lipschitz = max_lipschitz
        self.gates = gates
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.random_state = random_state


class GatedReLURegressor(ConvexRegressor):
    """sum |f(x) - y|^2/2 + beta sum |v_i|, f = sum_i 1[g_i . x >= 0] v_i . x with gates that stay fixed: a group lasso.

    Its least value is certified whatever the gates, over all networks with these; it jumps, so it has no Lipschitz constant.

    Parameters
    ----------
    As of `ConvexReLURegressor`.
    """

    gated = True

    def __init__(
        self,
        beta: float = 0.1,
        *,
        gates: int | Literal["all"] = 100,
        fit_intercept: bool = False,
        tol: float = 1e-7,
        random_state: Any = None,
    ) -> None:
        self.beta = beta
        self.gates = gates
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.random_state = random_state


class GatedReLUClassifier(ConvexClassifier):
    """The same for classes, the groups of a gate shared by all outputs.

    Parameters
    ----------
    As of `ConvexReLUClassifier`.
    """

    gated = True

    def __init__(
        self,
        beta: float = 0.1,
        *,
        loss: Literal["logistic", "hinge", "squared_hinge", "squared"] = "logistic",
        gates: int | Literal["all"] = 100,
        fit_intercept: bool = False,
        tol: float = 1e-7,
        random_state: Any = None,
    ) -> None:
        self.beta = beta
        self.loss = loss
        self.gates = gates
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.random_state = random_state
