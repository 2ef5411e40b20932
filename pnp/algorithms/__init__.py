"""Plug-and-play algorithms: frozen settings with init / step / estimate / guarantee, one family a file."""

from pnp.algorithms.admm import ADMM
from pnp.algorithms.pgd import PGD
from pnp.algorithms.state import Algorithm, State

__all__ = ["ADMM", "PGD", "Algorithm", "State"]
