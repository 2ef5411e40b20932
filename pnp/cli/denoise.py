"""`pnp denoise`: one pass of a certified denoiser over a photograph."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor, nn

from pnp.cli import inputs, results, rungs
from pnp.cli.options import Common, option
from pnp.cli.progress import passes, reporting
from pnp.guiding import Begins, Guided
from pnp.priors import prepare, prior
from pnp.report import figures
from pnp.wrappers import Channelwise
from stablenet.devices import find_device
from stablenet.images.photographs import add_noise

ACCURACY = 2e-4
"""Of an iterated proximal operator, as a root mean square: a twentieth of a gray level of 8 bits."""
REFRESHES = 2


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
    denoiser: Annotated[str | None, option("NAME", "that of the rung, gray or color as the image is")] = None
    """A bundled denoiser by name, or a file of weights."""
    common: Common = field(default_factory=Common)

    def run(self) -> int:
        """Carry the command out; its exit code."""
        common = self.common
        results.check_output(common.output)
        inputs.check_noise_level(self.noise_level)
        device = find_device(common.device)
        photograph = inputs.load_image(self.image, common.white_level)
        channels = photograph.pixels.shape[1]
        name = self.denoiser or rungs.denoiser_for(common.rung, "denoising", channels)
        denoiser = inputs.load_denoiser(name)
        rung = rungs.rung_of(denoiser, common.rung)
        print(*rungs.told(rung, "denoising", self.noise_level, channels), sep="\n")
        simulated = self.simulate or self.image is None
        clean = photograph.pixels if simulated else None
        generator = torch.Generator().manual_seed(common.seed)
        noisy = photograph.pixels if clean is None else add_noise(clean, self.noise_level, generator)
        if rung.name == "guided":
            denoiser = _guided(denoiser.to(device), noisy.to(device), self.noise_level)
        denoised, error, seconds = _pass(denoiser.to(device), noisy.to(device), self.noise_level)
        gained = results.gain(noisy, denoised, clean)
        with results.staged(common.output) as folder:
            results.write_picture(folder, "denoised", denoised, photograph, floats=common.floats)
            panels = results.panels(clean, ("noisy", noisy), ("denoised", denoised), gained)
            figures.comparison(folder / "comparison.png", panels)
            facts = {
                "command": "pnp denoise",
                "settings": results.settings(self),
                "image": results.described(photograph, self.image),
                "rung": {"name": rung.name, "promise": rung.promise},
                "denoiser": {"name": name, "certificate": inputs.certified(denoiser)},
                "error_bound": error,
                "exit_reason": "finished",
                "exit_code": 0,
                "seconds": seconds,
                "psnr": results.decibels(gained),
            }
            results.write_run(folder / "run.json", facts)
        return 0


def _guided(denoiser: nn.Module, noisy: Tensor, noise_level: float) -> nn.Module:
    """The map that is frozen at the last of a few guides, each the estimate of the one before."""
    assert isinstance(denoiser, Guided)
    guide, channelwise = noisy, noisy.shape[1] > 1 and prior(denoiser).accepts.channels == 1
    done = 0
    if isinstance(denoiser, Begins):
        done = 1
        first = prepare(denoiser.beginning, channels=noisy.shape[1]).at(noise_level)
        guide, _ = first.within(noisy, ACCURACY * noisy[0].numel() ** 0.5)
    for _ in range(done, REFRESHES + 1):
        seen = guide.reshape(-1, 1, *guide.shape[-2:]) if channelwise else guide
        frozen = denoiser.prepare(seen.detach(), noise_level)
        frozen = Channelwise(frozen) if channelwise else frozen
        guide, _ = prior(frozen).at(noise_level).within(noisy, ACCURACY * noisy[0].numel() ** 0.5)
    return frozen


def _pass(denoiser: nn.Module, noisy: Tensor, noise_level: float) -> tuple[Tensor, float, float]:
    """The denoised image on the CPU, a bound of its error as a root mean square, and the seconds that it took."""
    at_level = prepare(denoiser, channels=noisy.shape[1]).at(noise_level)
    with reporting() as reporter, torch.no_grad():

        def tell(share: float) -> None:
            reporter.tell(f"{share:.0%} of the pass", share)

        with passes(at_level, noisy, tell):
            denoised, error = at_level.within(noisy, ACCURACY * noisy[0].numel() ** 0.5)
        off = float(error.max()) / noisy[0].numel() ** 0.5
        if off > 0:
            print(f"error        the proximal operator is at most {off:.1e} away, as a root mean square")
        return denoised.cpu(), off, reporter.seconds
