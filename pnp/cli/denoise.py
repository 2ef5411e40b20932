"""`pnp denoise`: one pass of a certified denoiser over a photograph."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor, nn

from pnp.cli import inputs, results
from pnp.cli.options import Common, option
from pnp.cli.progress import passes, reporting
from pnp.priors import prepare
from pnp.report import figures
from stablenet.certificate import certify
from stablenet.devices import find_device
from stablenet.images.photographs import add_noise


@dataclass(frozen=True)
class Denoise:
    """Denoise a photograph with one pass of a certified denoiser.

    Exit codes: 0, 2 bad input, 130 stopped by Ctrl-C; nothing is written unless it is 0.
    """

    image: Annotated[tyro.conf.Positional[Path | None], option("IMAGE", "a bundled photograph")] = None
    """PNG, JPEG or TIFF of integers or floats, gray or color. Noisy already, unless --simulate."""
    noise_level: float = 25 / 255
    """Standard deviation of the noise, for pixels in [0, 1]."""
    simulate: bool = False
    """Add the noise first; the image is taken as clean."""
    denoiser: Annotated[str | None, option("NAME", "denoiser-gray or denoiser-color, as the image is")] = None
    """A bundled denoiser by name, or a file of weights."""
    common: Common = field(default_factory=Common)

    def run(self) -> int:
        """Carry the command out; its exit code."""
        common = self.common
        results.check_output(common.output)
        inputs.check_noise_level(self.noise_level)
        device = find_device(common.device)
        photograph = inputs.load_image(self.image, common.white_level)
        name = self.denoiser or inputs.default_denoiser(photograph.pixels)
        denoiser = inputs.load_denoiser(name)
        simulated = self.simulate or self.image is None
        clean = photograph.pixels if simulated else None
        generator = torch.Generator().manual_seed(common.seed)
        noisy = photograph.pixels if clean is None else add_noise(clean, self.noise_level, generator)
        denoised, seconds = _pass(denoiser.to(device), noisy.to(device), self.noise_level)
        gained = results.gain(noisy, denoised, clean)
        with results.staged(common.output) as folder:
            results.write_picture(folder, "denoised", denoised, photograph, floats=common.floats)
            panels = results.panels(clean, ("noisy", noisy), ("denoised", denoised), gained)
            figures.comparison(folder / "comparison.png", panels)
            facts = {
                "command": "pnp denoise",
                "settings": results.settings(self),
                "image": results.described(photograph, self.image),
                "denoiser": {"name": name, "certificate": str(certify(denoiser).certificate)},
                "exit_reason": "finished",
                "exit_code": 0,
                "seconds": seconds,
                "psnr": results.decibels(gained),
            }
            results.write_run(folder / "run.json", facts)
        return 0


def _pass(denoiser: nn.Module, noisy: Tensor, noise_level: float) -> tuple[Tensor, float]:
    """The denoised image on the CPU, and the seconds that it took."""
    at_level = prepare(denoiser, channels=noisy.shape[1]).at(noise_level)
    with reporting() as reporter, torch.no_grad():

        def tell(share: float) -> None:
            reporter.tell(f"{share:.0%} of the pass", share)

        with passes(at_level, noisy, tell):
            denoised = at_level(noisy).cpu()
        return denoised, reporter.seconds
