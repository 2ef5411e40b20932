"""Options that commands share, each said once, and how names become objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from pnp.algorithms import ADMM, PGD
from stablenet.images.decoding import InputError

ALGORITHMS: dict[str, type[PGD] | type[ADMM]] = {"pgd": PGD, "admm": ADMM}


def option(metavar: str, unset: str) -> object:
    """How an option that may be left out appears in the help."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {unset})")


@dataclass(frozen=True)
class Common:
    """What every command takes."""

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

    algorithm: Literal["pgd", "admm"] = "pgd"
    """Proximal gradient, or ADMM (Douglas-Rachford)."""
    step_size: Annotated[float | None, option("FLOAT", "chosen so that the theorem holds")] = None
    """Of the data term. PGD needs less than 2/L; ADMM takes any."""
    denoiser_noise_level: Annotated[float | None, option("FLOAT", "chosen for the noise level and the step size")] = None
    """Strength of the denoiser; larger is smoother."""
    tolerance: float = 1e-4
    """Stop when an iteration moves the pixels by less than this, as a root mean square."""
    max_iterations: int = 1000
    """Give up after this many iterations; the results are written all the same, with exit code 3."""

    def make_algorithm(self) -> PGD | ADMM:
        """The algorithm by its name, with the step size if one was given."""
        return ALGORITHMS[self.algorithm](step_size=self.step_size)


def find_device(name: str) -> torch.device:
    """The device of a name.

    Raises
    ------
    InputError : neither cpu nor cuda, or a GPU that torch does not find.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name} is not supported: choose cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {name} is not there: torch {torch.__version__} finds {torch.cuda.device_count()} GPUs; use --device cpu"
        )
    return device
