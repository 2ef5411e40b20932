"""Plug-and-play restoration with a convergence theorem that is checked before the first iteration."""

from pnp.algorithms import ADMM, PGD
from pnp.bounds import Bound, Refused
from pnp.denoisers import Channelwise, DeepinvDenoiser, Relaxed, prepare
from pnp.guarantees import Guarantee
from pnp.physics import Smoothness, certified_smoothness
from pnp.planning import Run, plan
from pnp.problem import Problem, pose
from pnp.solve import GuaranteeViolated, Record, Solution, iterate, solve

__all__ = [
    "ADMM",
    "PGD",
    "Bound",
    "Channelwise",
    "DeepinvDenoiser",
    "Guarantee",
    "GuaranteeViolated",
    "Problem",
    "Record",
    "Refused",
    "Relaxed",
    "Run",
    "Smoothness",
    "Solution",
    "certified_smoothness",
    "iterate",
    "plan",
    "pose",
    "prepare",
    "solve",
]
