"""How an algorithm's map is iterated: frozen settings with their law, one scheme a file."""

from pnp.schemes.anderson import Anderson
from pnp.schemes.halpern import Halpern
from pnp.schemes.overrelaxed import Overrelaxed
from pnp.schemes.plain import Plain
from pnp.schemes.protocol import Judging, Scheme
from pnp.schemes.quasi_newton import QuasiNewton

__all__ = ["Anderson", "Halpern", "Judging", "Overrelaxed", "Plain", "QuasiNewton", "Scheme"]
