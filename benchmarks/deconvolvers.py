"""What benchmarks/deblurring.py compares: the rungs of the ladder, each under its theorem, and three methods without learning.

Source: docs/how-to-choose.md; a method is where the search for its parameters starts, and how to begin a stream of (estimate,
residual) together with what is guaranteed of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec

import classical
from classical import Steps
from deepinv.physics import LinearPhysics
from torch import Tensor

import pnp
from pnp.algorithms.protocol import Algorithm
from pnp.guarantees import Guarantee
from pnp.guiding import Stage, guided_stages
from pnp.scenes.scene import Scene
from stablenet.bundled import available
from stablenet.weights import pretrained

Levels = dict[str, float]
"""What was chosen: "level" of the denoiser, in units of the noise; "weight" of the regularization, in units of its own."""
Begin = Callable[[Scene, float, Levels, pnp.Stop], tuple[str, Steps]]
LARGEST_LEVEL = 0.999 * 50 / 255
MEMORY = 10
REFRESHES = 2


@dataclass(frozen=True)
class Method:
    """A way to deblur.

    Parameters
    ----------
    name : in the table.
    first : where the search for its parameters starts.
    begin : from a scene, its noise level and the parameters, what is guaranteed and the stream of iterates.
    weights, package : without which it is left out.
    channels : of its images.
    """

    name: str
    first: Levels
    begin: Begin
    weights: str = ""
    package: str = ""
    channels: int = 1

    def allows(self, noise: float, levels: Levels) -> bool:
        """Whether the denoiser is made for that level."""
        return levels.get("level", 0.0) * noise <= LARGEST_LEVEL

    @property
    def present(self) -> bool:
        return self.weights in ("", *available()) and (not self.package or find_spec(self.package) is not None)


def proximal_gradient(levels: Levels) -> tuple[Algorithm, pnp.Anderson]:
    return pnp.PGD(), pnp.Anderson(MEMORY)


def descent(levels: Levels) -> tuple[Algorithm, None]:
    """With lambda = weight (noise/level)^2, by the scheme that is usual for it."""
    return pnp.Descent(weight=levels["weight"] / levels["level"] ** 2), None


@cache
def ready(weights: str, clipped: bool) -> pnp.priors.Prior:
    network = pretrained(weights)
    return pnp.prior(pnp.Clipped(network) if clipped else network)


def plug_and_play(
    algorithm: Callable[[Levels], tuple[Algorithm, pnp.Anderson | None]],
    weights: str,
    clipped: bool,
    scene: Scene,
    noise: float,
    levels: Levels,
    stop: pnp.Stop,
) -> tuple[str, Steps]:
    problem, (chosen, scheme) = pnp.pose(scene.measurement, scene.physics, noise_level=noise), algorithm(levels)
    level = levels["level"] * noise
    run = pnp.plan(chosen, problem, ready(weights, clipped), denoiser_noise_level=level, scheme=scheme, stop=stop)
    size = math.sqrt(scene.start.numel())
    return wording(run.guarantee), ((r.estimate, float(r.residual.max()) / size) for r in pnp.iterate(run))


def guided(weights: str, scene: Scene, noise: float, levels: Levels, stop: pnp.Stop) -> tuple[str, Steps]:
    """Descent on the quadratic potential that a guide has set; the guarantee is that of a run whose guide is held fixed."""
    algorithm, scheme = descent(levels)
    stages, others = (
        guided_stages(
            algorithm,
            pnp.pose(scene.measurement, scene.physics, noise_level=noise),
            pretrained(weights),
            denoiser_noise_level=levels["level"] * noise,
            refreshes=REFRESHES,
            clipped=False,
            scheme=scheme,
            stop=stop,
        )
        for _ in range(2)
    )
    next(others)
    said = others.send(scene.start).run.guarantee  # that of every run whose guide is held fixed
    return wording(said), _staged(next(stages), stages, math.sqrt(scene.start.numel()))


def _staged(stage: Stage, stages: Generator[Stage, Tensor | None, None], size: float) -> Steps:
    """The iterates of all stages; the residual counts in the last alone."""
    while True:
        last = stage.index == REFRESHES
        for record in pnp.iterate(stage.run):
            yield record.estimate, float(record.residual.max()) / size if last else math.inf
        if last:
            return
        stage = stages.send(record.estimate)


def wording(guarantee: Guarantee) -> str:
    """The theorem, its source, what is assumed and what is given up, in the guarantee's own words."""
    text = f"{guarantee.theorem} [{guarantee.source}], assuming {'; '.join(guarantee.assumptions)}"
    return f"{text}. Given up: {guarantee.gives_up}" if guarantee.gives_up else text


def classic(
    guarantee: str,
    function: Callable[[Tensor, LinearPhysics, float], Steps],
    power: int,
    scene: Scene,
    noise: float,
    levels: Levels,
    stop: pnp.Stop,
) -> tuple[str, Steps]:
    """With the weight times noise^power."""
    return guarantee, function(scene.measurement, scene.physics, levels["weight"] * noise**power)


CONVEX = "converges to a global minimizer of a convex energy [Condat2013], assuming real arithmetic"
FORMULA = "a formula for the only minimizer of a strongly convex energy"
INEXACT = "none as run: thresholding padded wavelets is no exact proximal operator"
RIDGE = {"level": 3.0, "weight": 0.5}


def rungs(channels: int, averaged: str, weakly_convex: str, of_a_guide: str) -> tuple[Method, ...]:
    """The rungs whose networks are named."""
    return (
        Method("averaged", {"level": 0.625}, partial(plug_and_play, proximal_gradient, averaged, True), averaged, "", channels),
        Method(
            "weakly convex ridge", RIDGE, partial(plug_and_play, descent, weakly_convex, False), weakly_convex, "", channels
        ),
        Method("guided", RIDGE, partial(guided, of_a_guide), of_a_guide, "", channels),
    )


CONVEX_RIDGE = Method("convex ridge", RIDGE, partial(plug_and_play, descent, "ridge-convex-gray", False), "ridge-convex-gray")
GRAY, COLOR = (
    rungs(1, "denoiser-gray-small", "ridge-gray", "deblurring-gray-guided"),
    rungs(3, "denoiser-color-small", "ridge-color", "denoiser-color-guided"),
)
TOTAL_VARIATION = Method("total variation", {"weight": 5.4}, partial(classic, CONVEX, classical.total_variation, 2))
METHODS = {
    1: (
        Method("Tikhonov", {"weight": 1.4}, partial(classic, FORMULA, classical.tikhonov, 1)),
        Method("wavelets (deepinv)", {"weight": 0.3}, partial(classic, INEXACT, classical.wavelets, 1), package="ptwt"),
        TOTAL_VARIATION,
        GRAY[0],
        CONVEX_RIDGE,
        *GRAY[1:],
    ),
    3: (replace(TOTAL_VARIATION, channels=3), *COLOR),
}
"""By the channels of their images; in color, each takes the parameters that were chosen for gray ones."""
