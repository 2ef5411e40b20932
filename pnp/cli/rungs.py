"""The ladder of guarantees as commands offer it: what each rung promises, who stands on it, what it was measured to give.

Source: docs/theorems.md, P1 to P12; the decibels are read from the table that benchmarks/strengths.py wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from pnp.explicit import potential_of
from pnp.facts import accepts
from pnp.guiding import Guided
from pnp.strengths import Row, rows
from stablenet.bundled import available
from stablenet.images.decoding import InputError

Name = Literal["convex", "averaged", "weakly-convex", "guided"]
Task = Literal["deblurring", "denoising"]


@dataclass(frozen=True)
class Rung:
    """One rung.

    Parameters
    ----------
    name : on the command line.
    promise : what its theorem says, in a few words.
    denoisers : of each task, by the name before "gray" or "color"; the first that is bundled is taken.
    """

    name: Name
    promise: str
    denoisers: dict[Task, tuple[str, ...]]


LADDER: tuple[Rung, ...] = (
    Rung(
        "convex",
        "a global minimizer of a convex energy; the denoiser is firmly nonexpansive",
        {"deblurring": ("ridge-convex-{}",), "denoising": ("ridge-convex-{}",)},
    ),
    Rung(
        "averaged",
        "a fixed point of an averaged map",
        {"deblurring": ("denoiser-{}-small",), "denoising": ("denoiser-{}",)},
    ),
    Rung(
        "guided",
        "a fixed point of an averaged map, its guide held fixed",
        {"deblurring": ("deblurring-{}-guided", "denoiser-{}-guided", "ridge-{}"), "denoising": ("denoiser-{}-guided",)},
    ),
    Rung(
        "weakly-convex",
        "one critical point of an energy that never rises; the map is not nonexpansive",
        {"deblurring": ("ridge-{}",), "denoising": ("ridge-{}",)},
    ),
)
"""From the strictest theorem to the one that gives up most."""

PREFERRED: dict[Task, tuple[Name, ...]] = {
    "deblurring": ("guided", "weakly-convex", "averaged", "convex"),
    "denoising": ("guided", "weakly-convex", "averaged", "convex"),
}
"""By the picture that they give in equal seconds (benchmarks/results/deblurring.md and denoising.md)."""


def rung_named(name: Name) -> Rung:
    """The rung by its name."""
    return next(rung for rung in LADDER if rung.name == name)


def bundled(rung: Rung, task: Task, channels: int) -> str | None:
    """The name of the rung's bundled denoiser, or None where none is."""
    names = [name.format("gray" if channels == 1 else "color") for name in rung.denoisers[task]]
    return next((name for name in names if name in available()), None)


def denoiser_for(asked: Name | None, task: Task, channels: int, *, guided: bool = True) -> str:
    """The name of the denoiser of the rung that is asked for, or of the best that is bundled, guided ones among them or not.

    Raises
    ------
    InputError : no denoiser of that rung is bundled.
    """
    preferred = tuple(name for name in PREFERRED[task] if guided or name != "guided")
    for name in preferred if asked is None else (asked,):
        found = bundled(rung_named(name), task, channels)
        if found is not None:
            return found
    kind = "gray" if channels == 1 else "color"
    there = [rung.name for rung in LADDER if bundled(rung, task, channels) is not None]
    raise InputError(f"no {kind} denoiser of --rung {asked} is bundled: take --rung {', '.join(there)}, or --denoiser FILE")


def rung_of(denoiser: nn.Module, asked: Name | None) -> Rung:
    """Where a denoiser stands; on the guided rung if that is asked for and it takes a guide.

    Raises
    ------
    InputError : it does not stand on the rung that is asked for.
    """
    potential = potential_of(denoiser)
    if asked == "guided" and isinstance(denoiser, Guided):
        return rung_named("guided")
    if potential is None:
        found: Name = "guided" if isinstance(denoiser, Guided) else "averaged"
    else:
        found = "convex" if potential.weak_convexity == 0 else "weakly-convex"
    if asked is not None and asked != found:
        raise InputError(f"--rung {asked} is not that of the denoiser {type(denoiser).__name__}, which stands on {found}")
    return rung_named(found)


def frozen(denoiser: nn.Module) -> nn.Module:
    """The map that a guided denoiser makes of a gray guide, to see of which kind it is."""
    assert isinstance(denoiser, Guided)
    channels = accepts.of(denoiser).channels or 1
    return denoiser.prepare(torch.full((1, channels, 32, 32), 0.5), 0.1)


def told(rung: Rung, task: Task, noise_level: float, channels: int) -> list[str]:
    """The lines that name a rung, and what the others were measured to give at the nearest noise level of the table."""
    lines = [f"rung         {rung.name}: {rung.promise}"]
    measured = {row.rung: row for row in nearest(task, noise_level, channels)}
    mine = measured.get(rung.name)
    if mine is None or len(measured) < 2:
        return lines
    beside = [other.name for other in LADDER if other.name in measured and other != rung]
    others = ", ".join(f"{name} {measured[name].psnr - mine.psnr:+.2f} dB" for name in beside)
    lines.append(f"ladder       measured at noise {mine.noise_level:g} ({mine.pictures}): {mine.psnr:.2f} dB here, {others}")
    return lines


def nearest(task: Task, noise_level: float, channels: int) -> list[Row]:
    """The rows of the noise level that is nearest in ratio."""
    known = [row for row in rows() if row.task == task and row.channels == channels]
    if not known:
        return []
    ratio = min(max(row.noise_level / noise_level, noise_level / row.noise_level) for row in known)
    return [row for row in known if max(row.noise_level / noise_level, noise_level / row.noise_level) <= ratio * (1 + 1e-9)]
