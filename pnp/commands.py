"""What the command line does once its names are objects: restore, tell, and write a folder whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from pnp import plots
from pnp.algorithms import Algorithm
from pnp.deblur import Scene
from pnp.denoisers import prepare
from pnp.solve import Record, Solution, solve
from stablenet.images.decoding import InputError
from stablenet.images.quality import psnr
from stablenet.images.writing import write_image


def deblur(
    scene: Scene,
    kernel: Tensor,
    algorithm: Algorithm,
    denoiser: nn.Module,
    *,
    noise_level: float,
    denoiser_noise_level: float | None,
    tolerance: float,
    max_iterations: int,
    output: Path,
) -> Solution:
    """Restore a scene, print the guarantee and the gain, and write restored.png, comparison.png and residuals.png."""
    began = time.perf_counter()
    solution = solve(
        algorithm,
        scene.measurement,
        scene.physics,
        denoiser,
        noise_level=noise_level,
        denoiser_noise_level=denoiser_noise_level,
        init=scene.init,
        tolerance=tolerance,
        max_iterations=max_iterations,
        callback=_progress if sys.stderr.isatty() else None,
    )
    seconds = time.perf_counter() - began
    print(f"guarantee    {solution.guarantee}")
    _tell_end(solution, seconds, tolerance)
    restored = scene.visible(solution.estimate)
    reference = None if scene.reference is None else scene.visible(scene.reference)
    panels = _compare(reference, ("blurred and noisy", scene.measurement), ("restored", restored))
    with _staged(output) as folder:
        write_image(folder / "restored.png", restored)
        plots.comparison(folder / "comparison.png", panels, kernel=kernel)
        plots.residual_plot(
            folder / "residuals.png",
            solution.residuals,
            size=scene.init[0].numel(),
            tolerance=tolerance,
            guarantee=solution.guarantee,
            distance=solution.distance,
        )
    print(f"wrote        restored.png, comparison.png and residuals.png into {output}")
    return solution


def denoise(noisy: Tensor, denoiser: nn.Module, *, noise_level: float, reference: Tensor | None, output: Path) -> Tensor:
    """One pass of the denoiser over (1, channels, height, width); writes denoised.png and comparison.png."""
    at_level = prepare(denoiser, channels=noisy.shape[1]).at(noise_level)
    with torch.no_grad():
        denoised = at_level(noisy)
    panels = _compare(reference, ("noisy", noisy), ("denoised", denoised))
    with _staged(output) as folder:
        write_image(folder / "denoised.png", denoised)
        plots.comparison(folder / "comparison.png", panels)
    print(f"wrote        denoised.png and comparison.png into {output}")
    return denoised


def check_output(folder: Path) -> None:
    """Refuse, before any work, a folder that cannot be made or written.

    Raises
    ------
    InputError : it is a file, or lies where nothing can be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"the output {folder} is a file: name a folder")
    parent = folder.absolute()
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"the output {folder} cannot be written: {parent} is not a writable folder")


def _compare(reference: Tensor | None, before: tuple[str, Tensor], after: tuple[str, Tensor]) -> list[tuple[str, Tensor]]:
    """The panels of the figure, with the PSNR of both (unclipped, peak 1) where the truth is known, also printed."""
    if reference is None:
        return [before, after]
    first, last = psnr(before[1], reference), psnr(after[1], reference)
    print(f"PSNR         {first:.2f} dB before, {last:.2f} dB after")
    return [
        ("original", reference),
        (f"{before[0]}, {first:.2f} dB", before[1]),
        (f"{after[0]}, {last:.2f} dB", after[1]),
    ]


def _tell_end(solution: Solution, seconds: float, tolerance: float) -> None:
    size = solution.estimate[0].numel()
    last = float(solution.residuals[-1].max()) / size**0.5
    end = "converged" if solution.converged else "not converged"
    sign = "<=" if solution.converged else ">"
    print(
        f"run          {end}: {solution.iterations} iterations in {seconds:.1f} s, residual {last:.2e} {sign} "
        f"tolerance {tolerance:g}, denoiser noise level {solution.denoiser_noise_level:.4f}"
    )


def _progress(record: Record) -> None:
    size = record.state.estimate[0].numel()
    text = f"iteration {record.iteration}, residual {float(record.residual.max()) / size**0.5:.2e}"
    print(f"\r{text:<60}\r", end="", file=sys.stderr, flush=True)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files move into `folder` if the block succeeds; otherwise nothing is left."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield stage
        folder.mkdir(exist_ok=True)
        for file in sorted(stage.iterdir()):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
