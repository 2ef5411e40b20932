"""Plug-and-play algorithms: frozen settings, an iteration map with its norm, and its theorem, one family a file."""

from pnp.algorithms.admm import ADMM
from pnp.algorithms.condat_vu import CondatVu
from pnp.algorithms.descent import Descent
from pnp.algorithms.drs import DRS
from pnp.algorithms.hqs import HQS
from pnp.algorithms.pgd import PGD
from pnp.algorithms.protocol import Algorithm, Applied, Denoise, Needs
from pnp.algorithms.red import RED

__all__ = ["ADMM", "DRS", "HQS", "PGD", "RED", "Algorithm", "Applied", "CondatVu", "Denoise", "Descent", "Needs"]
