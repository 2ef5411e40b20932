"""`pnp deblur`: a blurred photograph, simulated or observed, restored under a theorem."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from torch import Tensor

from pnp.cli import inputs, results, rungs
from pnp.cli.options import Common, Solving, option
from pnp.cli.restoring import restore
from pnp.scenes.blur import Boundary, observe, simulate
from pnp.scenes.scene import Scene
from stablenet.devices import find_device
from stablenet.images.decoding import InputError


@dataclass(frozen=True)
class Deblur:
    """Deblur a photograph by plug-and-play, under a convergence theorem that is checked first.

    `pnp deblur` alone blurs a bundled photograph and restores it. `pnp deblur IMAGE --kernel KERNEL` restores an image
    that is blurred already. `pnp deblur IMAGE --simulate` blurs a sharp image first, so that the gain can be told in
    decibels. The folder of results appears whole or not at all. Exit codes: 0 converged, 3 not converged (the results
    are written), 130 stopped by Ctrl-C (what was reached is written), 2 bad input (nothing is written).
    """

    image: Annotated[tyro.conf.Positional[Path | None], option("IMAGE", "a bundled photograph")] = None
    """PNG, JPEG or TIFF of integers or floats, gray or color. Blurred already, unless --simulate."""
    kernel: Annotated[str | None, option("KERNEL", "motion, when simulating")] = None
    """motion, gaussian, uniform, or a file: .npy, .npz (FILE.npz:NAME if it holds several) or an image of the kernel.
    The blur is a true convolution with it."""
    noise_level: float = 0.03
    """Standard deviation of the noise, for pixels in [0, 1]; 0.01 is little, 0.05 is much."""
    simulate: bool = False
    """Blur and noise the image first; it is taken as sharp."""
    boundary: Annotated[Boundary | None, option("{circular,valid}", "circular when simulating, else valid")] = None
    """circular: the image repeats beyond its border (exact for a simulation, rings on a photograph). valid: nothing is
    assumed beyond the border."""
    denoiser: Annotated[str | None, option("NAME", "that of the rung, gray or color as the image is")] = None
    """A bundled denoiser by name, or a file of weights."""
    solving: Solving = field(default_factory=Solving)
    common: Common = field(default_factory=Common)

    def run(self) -> int:
        """Carry the command out; its exit code."""
        common = self.common
        results.check_output(common.output)
        inputs.check_noise_level(self.noise_level)
        device = find_device(common.device)
        if not self._simulated and self.kernel is None:
            raise InputError(
                f"the blur of {self.image} is unknown: give --kernel (a file, or motion, gaussian, uniform), or "
                "--simulate to blur the image first"
            )
        photograph = inputs.load_image(self.image, common.white_level)
        kernel = inputs.load_kernel(self.kernel or "motion")
        channels = photograph.pixels.shape[1]
        by_table = self.solving.strength == "table"
        name = self.denoiser or rungs.denoiser_for(common.rung, "deblurring", channels, guided=by_table)
        denoiser = inputs.load_denoiser(name)
        rung = rungs.rung_of(denoiser, common.rung)
        if rung.name == "guided" and not by_table:
            raise InputError(
                "--strength discrepancy needs a run without a guide: take --rung weakly-convex, or --strength table"
            )
        print(*rungs.told(rung, "deblurring", self.noise_level, channels), sep="\n")
        solving = self.solving.settled(denoiser, guided=rung.name == "guided")
        return restore(
            self._scene(photograph.pixels, kernel).to(device),
            kernel,
            photograph,
            denoiser.to(device),
            noise_level=self.noise_level,
            solving=solving,
            guided=rung.name == "guided",
            common=common,
            facts={
                "command": "pnp deblur",
                "settings": results.settings(replace(self, solving=solving)),
                "rung": {"name": rung.name, "promise": rung.promise},
                "image": results.described(photograph, self.image),
                "kernel": {"name": self.kernel or "motion", "shape": list(kernel.shape[-2:])},
                "denoiser": {"name": name, "certificate": inputs.certified(denoiser)},
            },
        )

    @property
    def _simulated(self) -> bool:
        return self.simulate or self.image is None

    def _scene(self, pixels: Tensor, kernel: Tensor) -> Scene:
        """The image as it is, or blurred and noisy; prints which."""
        if not self._simulated:
            print(f"noise        {self.noise_level:g} assumed")
            return observe(pixels, kernel, boundary=self.boundary or "valid")
        boundary, seed = self.boundary or "circular", self.common.seed
        print(f"noise        {self.noise_level:g} added, seed {seed}")
        return simulate(pixels, kernel, noise_level=self.noise_level, boundary=boundary, seed=seed)
