"""What commands that restore a scene share: iterate under the theorem, tell, keep the best on Ctrl-C, and write the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from pnp.cli import results
from pnp.cli.options import Common, Solving
from pnp.cli.progress import Course, passes, reporting
from pnp.iterating import Record, iterate
from pnp.planning import Run, Stop, plan
from pnp.problem import pose
from pnp.report import figures
from pnp.scenes.scene import Scene
from stablenet.images.reading import Photograph

End = Literal["converged", "not converged", "interrupted"]
LARGE = 2**20  # pixels from which on the checks take seconds
EXIT_CODES: dict[End, int] = {"converged": 0, "not converged": 3, "interrupted": 130}


@dataclass(frozen=True)
class Finished:
    """How a run ended.

    Parameters
    ----------
    best : the record of least residual, which is the last one where the residual never rises.
    residuals : (iterations, batch), as the theorem measures them.
    pixels : by whose square root a residual is divided to be a root mean square.
    """

    end: End
    best: Record
    residuals: Tensor
    pixels: int
    seconds: float

    @property
    def root_mean_squares(self) -> Tensor:
        """The residuals as they are printed and compared with the tolerance."""
        return self.residuals / self.pixels**0.5

    @property
    def error_bound(self) -> float | None:
        """A root mean square that bounds the distance to the fixed point, where the theorem gives one."""
        bound = self.best.error_bound
        return None if bound is None else float(bound.max()) / self.pixels**0.5


def restore(
    scene: Scene,
    kernel: Tensor,
    photograph: Photograph,
    denoiser: nn.Module,
    *,
    noise_level: float,
    solving: Solving,
    common: Common,
    facts: Mapping[str, object],
) -> int:
    """Restore a scene, print the guarantee and the gain, and write the folder of results.

    Parameters
    ----------
    facts : what run.json tells besides.

    Returns
    -------
    int : 0 converged, 3 not converged, 130 interrupted; the results are written in each case.
    """
    with reporting() as reporter:
        reporter.tell("checking the hypotheses of the theorem", 0.0, now=scene.start.numel() > LARGE)
        run = _planned(scene, denoiser, noise_level, solving)
    finished = _carry_out(run)
    print(f"guarantee    {run.guarantee}")
    _tell_end(finished, run)
    restored = scene.visible(finished.best.state.estimate)
    reference = None if scene.reference is None else scene.visible(scene.reference)
    gained = results.gain(scene.measurement, restored, reference)
    panels = results.panels(reference, ("blurred and noisy", scene.measurement), ("restored", restored), gained)
    with results.staged(common.output) as folder:
        results.write_picture(folder, "restored", restored, photograph, floats=common.floats)
        figures.comparison(folder / "comparison.png", panels, kernel=kernel)
        figures.residual_plot(
            folder / "residuals.png",
            finished.residuals,
            size=finished.pixels,
            tolerance=run.tolerance,
            guarantee=run.guarantee,
            distance=finished.best.distance,
        )
        results.write_residuals(folder / "residuals.csv", finished.root_mean_squares)
        results.write_run(folder / "run.json", {**facts, **_told(run, finished), "psnr": results.decibels(gained)})
    return EXIT_CODES[finished.end]


def _planned(scene: Scene, denoiser: nn.Module, noise_level: float, solving: Solving) -> Run:
    """The run under its theorem; the scheme is settled from the averagedness of the algorithm's map."""
    run = plan(
        solving.make_algorithm(),
        pose(scene.measurement, scene.physics, noise_level=noise_level),
        solving.make_prior(denoiser),
        denoiser_noise_level=solving.denoiser_noise_level,
        stop=Stop(solving.tolerance, solving.max_iterations),
        start=scene.start,
    )
    scheme = solving.make_scheme(run.guarantee.averagedness)
    return replace(run, scheme=scheme, guarantee=scheme.guarantee(run.guarantee))


def _carry_out(run: Run) -> Finished:
    """Iterate with signs of life; Ctrl-C ends it with the best iterate, if there is one."""
    pixels = run.start[0].numel()
    residuals: list[Tensor] = []
    best: Record | None = None
    end: End = "not converged"
    with reporting() as reporter:
        course = Course(reporter, run.tolerance, run.max_iterations)
        try:
            with passes(run.denoise, run.start, course.passing):
                for record in iterate(run):
                    residuals.append(record.residual)
                    if best is None or bool(record.residual.max() <= best.residual.max()):
                        best = record
                    course.iterated(float(record.residual.max()) / pixels**0.5)
                    if bool(record.converged.all()):
                        end = "converged"
        except KeyboardInterrupt:
            if best is None:
                raise
            end = "interrupted"
        seconds = reporter.seconds
    assert best is not None
    return Finished(end, best, torch.stack(residuals).cpu(), pixels, seconds)


def _tell_end(finished: Finished, run: Run) -> None:
    last = float(finished.root_mean_squares[-1].max())
    sign = "<=" if finished.end == "converged" else ">"
    print(
        f"run          {finished.end}: {len(finished.residuals)} iterations in {finished.seconds:.1f} s, residual {last:.2e} "
        f"{sign} tolerance {run.tolerance:g}, denoiser noise level {run.denoiser_noise_level:.4f}"
    )
    if finished.error_bound is not None and finished.error_bound < 1:  # more says nothing of images in [0, 1]
        print(f"error        the fixed point is at most {finished.error_bound:.2e} away, as a root mean square")
    if finished.end == "interrupted":
        print(f"stopped      what iteration {finished.best.iteration} had reached is written, exit code 130")
    if finished.end == "not converged":
        print("stopped      the budget is spent: the results are written, exit code 3; raise --max-iterations or --tolerance")


def _told(run: Run, finished: Finished) -> dict[str, object]:
    return {
        "exit_reason": finished.end,
        "exit_code": EXIT_CODES[finished.end],
        "iterations": len(finished.residuals),
        "best_iteration": finished.best.iteration,
        "residual": float(finished.root_mean_squares[-1].max()),
        "tolerance": run.tolerance,
        "seconds": finished.seconds,
        "error_bound": finished.error_bound,
        "algorithm": repr(run.algorithm),
        "scheme": repr(run.scheme),
        "prior": type(run.prior.module).__name__,
        "denoiser_noise_level": run.denoiser_noise_level,
        "guarantee": str(run.guarantee),
        "assumptions": list(run.guarantee.assumptions),
    }
