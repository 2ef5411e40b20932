"""What a denoiser was made for, and how far it pulls into the box: facts by exact class, for which wrappers ask their inside.

Source: a range in the box proves that a fixed point exists (docs/theorems.md, P7).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pnp.bounds import Refused
from pnp.wrappers import Channelwise, Clipped, DeepinvDenoiser, Relaxed
from stablenet.networks import Denoiser, Symmetrized
from stablenet.rules import Rules


@dataclass(frozen=True)
class Accepts:
    """What a denoiser was made for; None where that is unknown.

    Parameters
    ----------
    channels : of the images.
    max_noise_level : the largest standard deviation of the noise, for images in [0, 1].
    """

    channels: int | None
    max_noise_level: float | None


accepts: Rules[Accepts] = Rules("range of channels and noise levels", Refused, "declare `channels` and `max_noise_level`")
"""By exact class; a class without a rule may declare `channels` and `max_noise_level`, otherwise both are unknown."""


@accepts.otherwise
def _declared(module: object) -> Accepts:
    if not (hasattr(module, "channels") and hasattr(module, "max_noise_level")):
        return Accepts(None, None)
    channels, end = module.channels, module.max_noise_level
    return Accepts(None if channels is None else int(channels), None if end is None else float(end))


@accepts(Denoiser)
def _of_denoiser(module: Denoiser) -> Accepts:
    return Accepts(module.architecture.channels, module.architecture.max_noise_level)


@accepts(Relaxed, Clipped, DeepinvDenoiser, Symmetrized)
def _of_the_inside(module: Relaxed | Clipped | DeepinvDenoiser | Symmetrized) -> Accepts:
    return accepts.of(module.denoiser)


@accepts(Channelwise)
def _of_each_channel(module: Channelwise) -> Accepts:
    return Accepts(None, accepts.of(module.denoiser).max_noise_level)


box_weight: Rules[float | None] = Rules("bounded range", Refused, "wrap it in pnp.Clipped")
"""l in (0, 1] with D(x) = (1 - l) x + l p(x), p(x) in [0, 1]^n; None where that is not known (docs/theorems.md, P7)."""


@box_weight(Clipped)
def _in_the_box(module: Clipped) -> float | None:
    return 1.0


@box_weight(Relaxed)
def _partly_in_the_box(module: Relaxed) -> float | None:
    inside = pull_into_the_box(module.denoiser)
    return inside * module.weight if inside is not None and module.weight <= 1 else None


@box_weight(Channelwise, DeepinvDenoiser, Symmetrized)
def _as_the_inside(module: Channelwise | DeepinvDenoiser | Symmetrized) -> float | None:
    return pull_into_the_box(module.denoiser)


def pull_into_the_box(module: nn.Module) -> float | None:
    """The box weight of a module, or None where no rule speaks of it."""
    return box_weight.of(module) if box_weight.covers(module) else None
