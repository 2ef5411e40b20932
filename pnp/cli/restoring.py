"""What commands that restore a scene share: iterate under the theorem, tell, keep the best on Ctrl-C, and write the results."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from pnp.cli import results
from pnp.cli.options import Common, Solving
from pnp.cli.progress import Course, Reporter, passes, reporting
from pnp.guarantees import EnergyDescends
from pnp.guiding import Stage, guided_stages
from pnp.iterating import Record, iterate
from pnp.planning import Run, Stop, plan
from pnp.problem import pose
from pnp.report import figures
from pnp.scenes.scene import Scene
from pnp.schemes import Plain
from pnp.tuning import Discrepancy, discrepancy
from stablenet.images.reading import Photograph

Stages = Generator[Stage, Tensor | None, None]
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
    run : the last one, which the guarantee speaks of.
    energies : F of each iteration, where the run descends on one.
    refreshes : after how many iterations a new guide was taken.
    """

    end: End
    best: Record
    residuals: Tensor
    pixels: int
    seconds: float
    run: Run
    energies: list[float]
    refreshes: tuple[int, ...] = ()

    @property
    def root_mean_squares(self) -> Tensor:
        """The residuals as they are printed and compared with the tolerance."""
        return self.residuals / self.pixels**0.5

    @property
    def gradient_mapping(self) -> float | None:
        """A root mean square that bounds |x - P(x - grad F(x))|, 0 at a critical point, where the run descends in the box."""
        watch, step_size = self.run.guarantee.watch, self.run.algorithm.step_size
        if not (isinstance(watch, EnergyDescends) and watch.box and step_size):
            return None
        return float(self.best.residual.max()) * max(1.0, 1 / step_size) / self.pixels**0.5

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
    guided: bool = False,
) -> int:
    """Restore a scene, print the guarantee and the gain, and write the folder of results.

    Parameters
    ----------
    facts : what run.json tells besides.
    guided : whether the denoiser takes a guide, which is refreshed with the estimate.

    Returns
    -------
    int : 0 converged, 3 not converged, 130 interrupted; the results are written in each case.
    """
    with reporting() as reporter:
        reporter.tell("checking the hypotheses of the theorem", 0.0, now=scene.start.numel() > LARGE)
        stages = _stages(scene, denoiser, noise_level, solving, guided)
        first = next(stages)
    finished = _carry_out(first, stages)
    run = finished.run
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
            energy=finished.energies[0] if finished.energies else None,
            refreshes=finished.refreshes,
        )
        results.write_residuals(folder / "residuals.csv", finished.root_mean_squares)
        results.write_run(folder / "run.json", {**facts, **_told(run, finished), "psnr": results.decibels(gained)})
    return EXIT_CODES[finished.end]


def _stages(scene: Scene, denoiser: nn.Module, noise_level: float, solving: Solving, guided: bool) -> Stages:
    """The runs under their theorems, one unless guided; the scheme is settled from the averagedness of the algorithm's map."""
    problem, algorithm = pose(scene.measurement, scene.physics, noise_level=noise_level), solving.make_algorithm()
    level, stop = solving.denoiser_noise_level, Stop(solving.tolerance or 0.0, solving.max_iterations)
    if guided:
        scheme = solving.make_scheme(None)
        yield from guided_stages(
            algorithm,
            problem,
            denoiser,
            denoiser_noise_level=level,
            clipped=solving.clipped,
            scheme=scheme,
            stop=stop,
            start=scene.start,
        )
        return
    made = solving.make_prior(denoiser)
    run = plan(algorithm, problem, made, denoiser_noise_level=level, scheme=Plain(), stop=stop, start=scene.start)
    scheme = solving.make_scheme(run.guarantee.averagedness)
    run = replace(run, scheme=scheme, guarantee=scheme.guarantee(run.guarantee))
    yield Stage(0, discrepancy(run, Discrepancy()) if solving.strength == "discrepancy" else run)


def _carry_out(stage: Stage, stages: Stages) -> Finished:
    """Iterate with signs of life, from guide to guide; Ctrl-C ends it with the best iterate, if there is one."""
    pixels = stage.run.start[0].numel()
    residuals: list[Tensor] = []
    energies: list[float] = []
    refreshes: list[int] = []
    best: Record | None = None
    end: End = "not converged"
    with reporting() as reporter:
        try:
            while True:
                reached = None
                for record in _watched(stage.run, reporter):
                    residuals.append(record.residual)
                    energies += [] if record.energy is None else [float(record.energy.max())]
                    if reached is None or record.energy is not None or record.residual.max() <= reached.residual.max():
                        best = reached = record
                    end = "converged" if bool(record.converged.all()) else "not converged"
                try:
                    stage = stages.send(record.estimate)
                except StopIteration:
                    break
                refreshes.append(len(residuals))
        except KeyboardInterrupt:
            if best is None:
                raise
            end = "interrupted"
        seconds = reporter.seconds
    assert best is not None
    return Finished(end, best, torch.stack(residuals).cpu(), pixels, seconds, stage.run, energies, tuple(refreshes))


def _watched(run: Run, reporter: Reporter) -> Iterator[Record]:
    """The records of a run, told as they come."""
    course, pixels = Course(reporter, run.tolerance, run.max_iterations), run.start[0].numel()
    with passes(run.denoise, run.start, course.passing):
        for record in iterate(run):
            course.iterated(float(record.residual.max()) / pixels**0.5)
            yield record


def _tell_end(finished: Finished, run: Run) -> None:
    last = float(finished.root_mean_squares[-1].max())
    sign = "<=" if finished.end == "converged" else ">"
    print(
        f"run          {finished.end}: {len(finished.residuals)} iterations in {finished.seconds:.1f} s, residual {last:.2e} "
        f"{sign} tolerance {run.tolerance:g}, denoiser noise level {run.denoiser_noise_level:.4f}"
    )
    if finished.error_bound is not None and finished.error_bound < 1:  # more says nothing of images in [0, 1]
        print(f"error        the fixed point is at most {finished.error_bound:.2e} away, as a root mean square")
    if finished.gradient_mapping is not None:
        first, last = finished.energies[0], finished.energies[-1]
        print(
            f"energy       F fell from {first:.6g} to {last:.6g}; left |x - P(x - grad F)| <= {finished.gradient_mapping:.1e}"
        )
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
        "gradient_mapping": finished.gradient_mapping,
        "energies": finished.energies or None,
        "refreshes": list(finished.refreshes),
        "algorithm": repr(run.algorithm),
        "scheme": repr(run.scheme),
        "prior": type(run.prior.module).__name__,
        "denoiser_noise_level": run.denoiser_noise_level,
        "guarantee": str(run.guarantee),
        "assumptions": list(run.guarantee.assumptions),
    }
