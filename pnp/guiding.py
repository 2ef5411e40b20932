"""Runs whose denoiser is guided by an image that is held fixed: run, take the estimate as guide, run again from there.

Source: for every fixed guide the map is averaged with one certificate, so that the theorem of the algorithm holds of the last
run (docs/theorems.md, P12). What is not nonexpansive is y -> D_(g(y))(y): nothing is claimed of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from deepinv.physics import LinearPhysics
from torch import Tensor, nn

from pnp.algorithms import Descent
from pnp.algorithms.protocol import Algorithm
from pnp.bounds import Refused
from pnp.facts import accepts
from pnp.guarantees import Guarantee
from pnp.iterating import Record
from pnp.planning import Run, Stop, plan
from pnp.priors import Prior, prepare, prior
from pnp.problem import Problem, pose
from pnp.schemes import QuasiNewton, Scheme
from pnp.solving import Solution, Told, concluded
from pnp.wrappers import Channelwise, Clipped

HELD = "with the guide held fixed while x moves"
GIVES_UP = (
    "the guide was computed from the measurement, so that the restored image as a function of the measurement is not covered, "
    "only each run from its guide"
)
EARLIER = Stop(2e-4, 50)
"""Where the runs end whose estimate only becomes a guide."""


@runtime_checkable
class Guided(Protocol):
    """A denoiser that is made for a guide: a frozen map x -> D(x, sigma), certified for every guide."""

    def prepare(self, guide: Tensor, sigma: float) -> nn.Module: ...


@runtime_checkable
class Begins(Guided, Protocol):
    """A guided denoiser with an explicit potential whose own run makes the first guide."""

    @property
    def beginning(self) -> nn.Module: ...


@runtime_checkable
class Restores(Guided, Protocol):
    """A guided denoiser that is told how noisy the measurement was from which its guide was restored."""

    def prepare_behind(self, guide: Tensor, sigma: float, noise_level: float) -> nn.Module: ...


@dataclass(frozen=True)
class Stage:
    """One of the runs: planned, and which it is, 0 for the first."""

    index: int
    run: Run


def solve_guided(
    algorithm: Algorithm,
    problem: Problem | Tensor,
    physics: LinearPhysics | None,
    denoiser: nn.Module,
    *,
    noise_level: float | None = None,
    denoiser_noise_level: float | None = None,
    refreshes: int = 2,
    clipped: bool = True,
    scheme: Scheme[Any] | None = None,
    stop: Stop | None = None,
    start: Tensor | None = None,
    callback: Callable[[Record], None] | None = None,
) -> Solution:
    """Restore under a guide that is taken anew `refreshes` times; the last run carries the guarantee, its guide held fixed.

    Parameters
    ----------
    algorithm, noise_level, denoiser_noise_level, scheme, start, callback : as in `pnp.solve`.
    problem, physics : y and its physics, or a posed problem and None.
    denoiser : guided: prepare(guide, sigma) gives the frozen map. The first run has the start as its guide or, where the
        denoiser has a `beginning`, is a `Descent` with that potential instead.
    refreshes : how often the estimate becomes the guide; 0 is a run whose guide is the start.
    clipped : whether the map is projected onto [0, 1], with which a fixed point is proved to exist; Descent does it itself.
    stop : of the last run; the earlier ones end at a residual of 2e-4 or after 50 iterations.

    Returns
    -------
    Solution : of the last run; `residuals` are those of all, `refreshes` tells after how many iterations the guide was taken.
    """
    if isinstance(problem, Tensor):
        if physics is None or noise_level is None:
            raise TypeError("pass (algorithm, y, physics, denoiser, noise_level=...), or a posed problem and None")
        problem = pose(problem, physics, noise_level=noise_level)
    stages = guided_stages(
        algorithm,
        problem,
        denoiser,
        denoiser_noise_level=denoiser_noise_level,
        refreshes=refreshes,
        clipped=clipped,
        scheme=scheme,
        stop=stop,
        start=start,
    )
    told = Told()
    taken: list[int] = []
    stage = next(stages)
    while True:
        record = told.follow(stage.run, callback)
        try:
            following = stages.send(record.estimate)
        except StopIteration:
            return replace(concluded(stage.run, told), refreshes=tuple(taken))
        stage = following
        taken.append(len(told.residuals))


def guided_stages(
    algorithm: Algorithm,
    problem: Problem,
    denoiser: nn.Module,
    *,
    denoiser_noise_level: float | None = None,
    refreshes: int = 2,
    clipped: bool = True,
    scheme: Scheme[Any] | None = None,
    stop: Stop | None = None,
    start: Tensor | None = None,
) -> Generator[Stage, Tensor | None, None]:
    """The runs one after the other, as a generator that is sent the estimate of each; parameters as in `solve_guided`."""
    if not isinstance(denoiser, Guided):
        raise Refused(
            f"{type(denoiser).__name__} is not guided: it has no prepare(guide, sigma) that gives a map for a fixed guide. "
            "Take pnp.solve with it."
        )
    if refreshes < 0:
        raise ValueError(f"refreshes must be at least 0, got {refreshes}")
    clipped = clipped and not isinstance(algorithm, Descent)
    image = problem.start if start is None else start
    level, first = denoiser_noise_level, None
    if refreshes > 0 and isinstance(denoiser, Begins):
        first, weight = _beginning(problem, denoiser.beginning, image)
        if denoiser.beginning is denoiser and isinstance(algorithm, Descent):  # reweighted, on the same energy
            level = first.denoiser_noise_level if level is None else level
            algorithm = replace(algorithm, weight=algorithm.weight or weight)
    level = _level(algorithm, problem, denoiser, image, clipped) if level is None else level

    def planned(guide: Tensor, stop: Stop | None) -> Run:
        made = _prior(denoiser, guide, level, clipped, problem.noise_level)
        run = plan(algorithm, problem, made, denoiser_noise_level=level, scheme=scheme, stop=stop, start=guide)
        return replace(run, guarantee=_held(run.guarantee))

    if first is not None:
        planned(image, stop)  # what is refused of a later run is refused before the first
        image = _received((yield Stage(0, first)))
    for index in range(0 if first is None else 1, refreshes + 1):
        image = _received((yield Stage(index, planned(image, stop if index == refreshes else EARLIER))))


def _received(estimate: Tensor | None) -> Tensor:
    assert estimate is not None
    return estimate


def _beginning(problem: Problem, potential: nn.Module, image: Tensor) -> tuple[Run, float | None]:
    """Descent with a potential that needs no guide, and its weight."""
    made = prepare(potential, channels=image.shape[1])
    settled = Descent().settle(problem, made)
    return plan(settled, problem, made, scheme=QuasiNewton(), stop=EARLIER, start=image), settled.weight


def _prior(denoiser: Guided, guide: Tensor, level: float, clipped: bool, noise_level: float) -> Prior:
    """The map of a guide that nobody else can change, on each channel where it is gray and the image is not."""
    guide = guide.detach().clone()
    by_channel = accepts.of(denoiser).channels == 1 and guide.shape[1] > 1
    guide = guide.reshape(-1, 1, *guide.shape[-2:]) if by_channel else guide
    if isinstance(denoiser, Restores):
        frozen = denoiser.prepare_behind(guide, level, noise_level)
    else:
        frozen = denoiser.prepare(guide, level)
    frozen = Channelwise(frozen) if by_channel else frozen
    return prior(Clipped(frozen) if clipped else frozen)  # Descent has the box in itself


def _level(algorithm: Algorithm, problem: Problem, denoiser: Guided, guide: Tensor, clipped: bool) -> float:
    """The noise level that the algorithm settles from the certificate, which is the same for all guides and levels."""
    made = _prior(denoiser, guide, problem.noise_level, clipped, problem.noise_level)
    made = replace(made, accepts=accepts.of(denoiser))
    chosen = algorithm.settle(problem, made)
    return chosen.denoiser_noise_level(problem, made)


def _held(guarantee: Guarantee) -> Guarantee:
    return replace(guarantee, theorem=f"{guarantee.theorem}, {HELD}", gives_up=guarantee.gives_up or GIVES_UP)
