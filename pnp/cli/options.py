"""Options that commands share, each said once, and how names become objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from torch import nn

from pnp.algorithms import ADMM, DRS, HQS, PGD, RED, Algorithm, CondatVu, Descent
from pnp.cli.rungs import Name, frozen
from pnp.explicit import potential_of
from pnp.priors import Prior, prior
from pnp.schemes import Anderson, Halpern, Overrelaxed, Plain, QuasiNewton, Scheme
from pnp.wrappers import Clipped
from stablenet.images.decoding import InputError

ALGORITHMS: dict[str, Callable[..., Algorithm]] = {
    "pgd": PGD,
    "admm": ADMM,
    "drs": DRS,
    "hqs": HQS,
    "red": RED,
    "condat-vu": CondatVu,
    "descent": Descent,
}

SCHEMES: dict[str, Callable[[], Scheme[Any]]] = {
    "plain": Plain,
    "halpern": Halpern,
    "anderson": Anderson,
    "quasi-newton": QuasiNewton,
}


def option(metavar: str, unset: str) -> object:
    """How an option that may be left out appears in the help."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {unset})")


@dataclass(frozen=True)
class Common:
    """What every command takes."""

    rung: Annotated[
        Name | None,
        option("{convex,averaged,weakly-convex,guided}", "the best picture that a bundled denoiser gives in equal time"),
    ] = None
    """Which guarantee is wanted, from the strictest: convex (a global minimizer), averaged (a fixed point), guided (a fixed
    point, its guide held fixed), weakly-convex (a critical point)."""
    white_level: Annotated[float | None, option("FLOAT", "what the file states, else the largest its type holds")] = None
    """The number that stands for white in the image file, such as 4095 for 12 bits in a file of 16."""
    seed: int = 0
    """Of the simulated noise."""
    device: Annotated[str, tyro.conf.arg(metavar="{cpu,cuda}")] = "cpu"
    """Where to compute; cuda:1 is the second GPU."""
    output: Path = Path("pnp-output")
    """Folder for the results: pictures (16 bits if the image had more than 8) and run.json."""
    floats: Annotated[bool, tyro.conf.arg(name="float")] = False
    """Write the result as a TIFF of floats too, unclipped."""


@dataclass(frozen=True)
class Solving:
    """How a scene is restored."""

    algorithm: Annotated[
        Literal["pgd", "admm", "drs", "hqs", "red", "condat-vu", "descent"] | None,
        option("{pgd,admm,drs,hqs,red,condat-vu,descent}", "descent on an explicit potential, else pgd"),
    ] = None
    """Proximal gradient, ADMM, Douglas-Rachford, half-quadratic splitting, gradient descent on regularization by
    denoising, Condat-Vu, or descent on an explicit energy."""
    scheme: Annotated[
        Literal["plain", "overrelaxed", "halpern", "anderson", "quasi-newton"] | None,
        option("{plain,overrelaxed,halpern,anderson,quasi-newton}", "quasi-newton for descent, else plain"),
    ] = None
    """How the algorithm's map is iterated: as it is, with longer steps, drawn to the start (Halpern), or extrapolated from
    the last few steps (Anderson); quasi-newton for descent alone."""
    factor: Annotated[float | None, option("FLOAT", "halfway to the largest that the theorem takes")] = None
    """Of the overrelaxed scheme: how much longer its steps are."""
    prior: Annotated[Literal["clipped", "plain"] | None, option("{clipped,plain}", "clipped for pgd, else plain")] = None
    """clipped: the denoised image is projected onto [0, 1], with which a fixed point is proved to exist."""
    step_size: Annotated[float | None, option("FLOAT", "chosen so that the theorem holds")] = None
    """Of the data term. PGD needs less than 2/L; ADMM takes any."""
    denoiser_noise_level: Annotated[float | None, option("FLOAT", "chosen for the noise level and the step size")] = None
    """Strength of the denoiser; larger is smoother."""
    strength: Annotated[Literal["table", "discrepancy"], option("{table,discrepancy}", "table")] = "table"
    """Of the prior: table, what was best on photographs with such noise; discrepancy, so that the residual Ax - y has the size
    of the noise, found in a few short runs."""
    tolerance: Annotated[float | None, option("FLOAT", "0.00005 for descent, else 0.0001")] = None
    """Stop when an iteration moves the pixels by less than this, as a root mean square."""
    max_iterations: int = 1000
    """Give up after this many iterations; the results are written all the same, with exit code 3."""

    def settled(self, denoiser: nn.Module, *, guided: bool = False) -> Solving:
        """The same with the algorithm and the scheme that suit the denoiser, where they were left open."""
        explicit = potential_of(frozen(denoiser) if guided else denoiser) is not None
        algorithm = self.algorithm or ("descent" if explicit else "pgd")
        tolerance = (5e-5 if algorithm == "descent" else 1e-4) if self.tolerance is None else self.tolerance
        return replace(
            self,
            tolerance=tolerance,
            algorithm=algorithm,
            scheme=self.scheme or ("quasi-newton" if algorithm == "descent" else "plain"),
        )

    def make_algorithm(self) -> Algorithm:
        """The algorithm by its name, with the step size if one was given."""
        return ALGORITHMS[self.algorithm or "pgd"](step_size=self.step_size)

    @property
    def clipped(self) -> bool:
        """Whether the denoised image is projected onto the box."""
        return (self.prior or ("clipped" if self.algorithm == "pgd" else "plain")) == "clipped"

    def make_prior(self, denoiser: nn.Module) -> Prior:
        """The denoiser made ready, with its result clipped to [0, 1] or as it is."""
        weak = potential_of(denoiser)
        clipped = self.clipped and (self.prior == "clipped" or weak is None or weak.is_convex)
        return prior(Clipped(denoiser) if clipped else denoiser)

    def make_scheme(self, averagedness: float | None) -> Scheme[Any]:
        """The scheme by its name, for a map of that averagedness.

        Raises
        ------
        InputError : a factor for a scheme that has none.
        """
        if self.factor is not None and self.scheme != "overrelaxed":
            raise InputError(f"--factor {self.factor:g} is of --scheme overrelaxed, not of {self.scheme}")
        if self.scheme == "overrelaxed":
            return Overrelaxed((1 + 1 / (averagedness or 1)) / 2 if self.factor is None else self.factor)
        return SCHEMES[self.scheme or "plain"]()
