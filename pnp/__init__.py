"""Plug-and-play restoration with a convergence theorem that is checked before the first iteration."""

import stablenet  # noqa: F401 - first, as it tells torch how its threads wait
from pnp import physics
from pnp.algorithms import ADMM, DRS, HQS, PGD, RED, CondatVu, Descent
from pnp.bounds import Bound, Refused
from pnp.guarantees import Guarantee
from pnp.guiding import solve_guided
from pnp.iterating import GuaranteeViolated, Record, iterate
from pnp.physics import Smoothness, certified_smoothness
from pnp.planning import Run, Stop, plan
from pnp.priors import prepare, prior
from pnp.problem import Problem, pose
from pnp.schemes import Anderson, Halpern, Overrelaxed, Plain, QuasiNewton
from pnp.solving import Solution, solve
from pnp.tuning import Discrepancy
from pnp.wrappers import Channelwise, Clipped, DeepinvDenoiser, Relaxed

__all__ = [
    "ADMM",
    "DRS",
    "HQS",
    "PGD",
    "RED",
    "Anderson",
    "Bound",
    "Channelwise",
    "Clipped",
    "CondatVu",
    "DeepinvDenoiser",
    "Descent",
    "Guarantee",
    "Discrepancy",
    "GuaranteeViolated",
    "Halpern",
    "Overrelaxed",
    "Plain",
    "Problem",
    "QuasiNewton",
    "Record",
    "Refused",
    "Relaxed",
    "Run",
    "Smoothness",
    "Solution",
    "Stop",
    "certified_smoothness",
    "iterate",
    "physics",
    "plan",
    "pose",
    "prepare",
    "prior",
    "solve",
    "solve_guided",
]
