"""`pnp deblur` and `pnp denoise`: the only place of pnp where names become objects."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor, nn

from pnp import kernels
from pnp.algorithms import ADMM, PGD
from pnp.commands import check_output, deblur, denoise
from pnp.deblur import Boundary, observe, simulate
from stablenet.bundled import data_path
from stablenet.certificate import certify
from stablenet.images.decoding import InputError
from stablenet.images.reading import read_image
from stablenet.weights import load, pretrained


def _option(metavar: str, unset: str) -> object:
    """How an option that may be left out appears in the help."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {unset})")


ALGORITHMS: dict[str, type[PGD] | type[ADMM]] = {"pgd": PGD, "admm": ADMM}


@dataclass(frozen=True)
class Deblur:
    """Deblur a photograph by plug-and-play, under a convergence theorem that is checked first.

    `pnp deblur` alone blurs a bundled photograph and restores it. `pnp deblur IMAGE --kernel KERNEL` restores an image
    that is blurred already. `pnp deblur IMAGE --simulate` blurs a sharp image first, so that the gain can be told in
    decibels. The folder of results appears only if the run succeeds.
    """

    image: Annotated[tyro.conf.Positional[Path | None], _option("IMAGE", "a bundled photograph")] = None
    """PNG, JPEG or TIFF, 8 or 16 bits, gray or color. Blurred already, unless --simulate."""
    kernel: Annotated[str | None, _option("KERNEL", "motion, when simulating")] = None
    """motion, gaussian, uniform, or a file: .npy, .npz (FILE.npz:NAME if it holds several) or an image of the kernel.
    The blur is a true convolution with it."""
    noise_level: float = 0.03
    """Standard deviation of the noise, for pixels in [0, 1]; 0.01 is little, 0.05 is much."""
    simulate: bool = False
    """Blur and noise the image first; it is taken as sharp."""
    boundary: Annotated[Boundary | None, _option("{circular,valid}", "circular when simulating, else valid")] = None
    """circular: the image repeats beyond its border (exact for a simulation, rings on a photograph). valid: nothing is
    assumed beyond the border."""
    algorithm: Literal["pgd", "admm"] = "pgd"
    """Proximal gradient, or ADMM (Douglas-Rachford)."""
    denoiser: Annotated[str | None, _option("NAME", "denoiser-gray-small or denoiser-color-small, as the image is")] = None
    """A bundled denoiser by name, or a file of weights. denoiser-gray and denoiser-color take twice as long or more."""
    step_size: Annotated[float | None, _option("FLOAT", "chosen so that the theorem holds")] = None
    """Of the data term. PGD needs less than 2/L; ADMM takes any."""
    denoiser_noise_level: Annotated[float | None, _option("FLOAT", "chosen for the noise level and the step size")] = None
    """Strength of the denoiser; larger is smoother."""
    tolerance: float = 1e-4
    """Stop when an iteration moves the pixels by less than this, as a root mean square."""
    max_iterations: int = 1000
    """Give up after this many iterations."""
    seed: int = 0
    """Of the simulated noise."""
    output: Path = Path("pnp-output")
    """Folder for restored.png, comparison.png and residuals.png."""


@dataclass(frozen=True)
class Denoise:
    """Denoise a photograph with one pass of a certified denoiser."""

    image: Annotated[tyro.conf.Positional[Path | None], _option("IMAGE", "a bundled photograph")] = None
    """PNG, JPEG or TIFF, 8 or 16 bits, gray or color. Noisy already, unless --simulate."""
    noise_level: float = 25 / 255
    """Standard deviation of the noise, for pixels in [0, 1]."""
    simulate: bool = False
    """Add the noise first; the image is taken as clean."""
    denoiser: Annotated[str | None, _option("NAME", "denoiser-gray or denoiser-color, as the image is")] = None
    """A bundled denoiser by name, or a file of weights."""
    seed: int = 0
    """Of the simulated noise."""
    output: Path = Path("pnp-output")
    """Folder for denoised.png and comparison.png."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad input ends with one line on stderr and exit code 2."""
    command = tyro.cli(
        Annotated[Deblur, tyro.conf.subcommand("deblur")] | Annotated[Denoise, tyro.conf.subcommand("denoise")],
        prog="pnp",
        description="Restore images by plug-and-play with a convergence guarantee.",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        run_deblur(command) if isinstance(command, Deblur) else run_denoise(command)
    except (ValueError, TypeError, OSError, RuntimeError, ArithmeticError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped: nothing was written", file=sys.stderr)
        raise SystemExit(130) from None


def run_deblur(command: Deblur) -> None:
    check_output(command.output)
    demo = command.image is None
    if not demo and not command.simulate and command.kernel is None:
        raise InputError(
            f"the blur of {command.image} is unknown: give --kernel (a file, or motion, gaussian, uniform), or "
            "--simulate to blur the image first"
        )
    pixels = load_image(command.image)
    kernel = load_kernel(command.kernel or "motion")
    denoiser = load_denoiser(command.denoiser or f"{_default_denoiser(pixels)}-small")  # one pass an iteration: the fast one
    if demo or command.simulate:
        _check_noise_level(command.noise_level)
        scene = simulate(
            pixels,
            kernel,
            noise_level=command.noise_level,
            boundary=command.boundary or "circular",
            seed=command.seed,
        )
        print(f"noise        {command.noise_level:g} added, seed {command.seed}")
    else:
        scene = observe(pixels, kernel, boundary=command.boundary or "valid")
        print(f"noise        {command.noise_level:g} assumed")
    deblur(
        scene,
        kernel,
        ALGORITHMS[command.algorithm](step_size=command.step_size),
        denoiser,
        noise_level=command.noise_level,
        denoiser_noise_level=command.denoiser_noise_level,
        tolerance=command.tolerance,
        max_iterations=command.max_iterations,
        output=command.output,
    )


def run_denoise(command: Denoise) -> None:
    check_output(command.output)
    pixels = load_image(command.image)
    denoiser = load_denoiser(command.denoiser or _default_denoiser(pixels))
    _check_noise_level(command.noise_level)
    if command.image is not None and not command.simulate:
        denoise(pixels, denoiser, noise_level=command.noise_level, reference=None, output=command.output)
        return
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(command.seed))
    noisy = pixels + command.noise_level * noise
    denoise(noisy, denoiser, noise_level=command.noise_level, reference=pixels, output=command.output)


def _default_denoiser(pixels: Tensor) -> str:
    return "denoiser-gray" if pixels.shape[1] == 1 else "denoiser-color"


def load_image(path: Path | None) -> Tensor:
    """The photograph at a path, or the bundled one; prints what was read."""
    photograph = read_image(data_path("images/camera.png") if path is None else path)
    _, channels, height, width = photograph.pixels.shape
    kind = "gray" if channels == 1 else "color, each channel restored by itself where the denoiser is gray"
    notes = "".join(f"; {note}" for note in photograph.notes)
    print(f"image        {path or 'bundled photograph'}, {height} x {width}, {kind}{notes}")
    return photograph.pixels


def load_denoiser(name: str) -> nn.Module:
    """A denoiser by name or from a file of weights; prints its certificate."""
    path = Path(name)
    named = path.suffix != ".safetensors" and not path.exists()
    denoiser = pretrained(name, kind="denoiser") if named else load(path, kind="denoiser")
    print(f"denoiser     {name}, {certify(denoiser).certificate}")
    return denoiser


def load_kernel(name: str) -> Tensor:
    """A kernel (1, 1, height, width) by name or from a file (FILE.npz:NAME takes one of several); prints it."""
    kernel, notes = _find_kernel(name)
    rows, columns = kernel.shape[-2:]
    print(f"kernel       {name}, {rows} x {columns}{''.join(f'; {note}' for note in notes)}")
    return kernel


def _find_kernel(name: str) -> tuple[Tensor, tuple[str, ...]]:
    if name in kernels.NAMED:
        return kernels.NAMED[name](), ()
    if ".npz:" in name:
        path, entry = name.rsplit(":", 1)
        return kernels.read_kernel(Path(path), entry)
    if not Path(name).exists():
        raise InputError(f"the kernel {name} is neither a file nor one of {', '.join(kernels.NAMED)}")
    return kernels.read_kernel(Path(name))


def _check_noise_level(noise_level: float) -> None:
    if not 0 < noise_level <= 1:
        raise InputError(f"noise level {noise_level:g} is not a positive standard deviation for pixels in [0, 1], such as 0.03")
