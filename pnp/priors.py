"""Denoisers made ready for an algorithm: a private copy, evaluated, frozen, certified from its weights, at one noise level.

Source: a certificate speaks of the weights it was computed from (docs/theorems.md, C7), so the copy is nobody else's; a range
in the box proves that a fixed point exists (P7).
"""

from __future__ import annotations

import copy
import inspect
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pnp.bounds import Refused
from pnp.wrappers import Channelwise, Clipped, DeepinvDenoiser, Relaxed
from stablenet.certificate import Certificate, CertificateTree, NotCertified, certify
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
    inside = _box_weight(module.denoiser)
    return inside * module.weight if inside is not None and module.weight <= 1 else None


@box_weight(Channelwise, DeepinvDenoiser, Symmetrized)
def _as_the_inside(module: Channelwise | DeepinvDenoiser | Symmetrized) -> float | None:
    return _box_weight(module.denoiser)


def _box_weight(module: nn.Module) -> float | None:
    return box_weight.of(module) if box_weight.covers(module) else None


@dataclass(frozen=True)
class Prior:
    """A denoiser made ready: a frozen copy of its own with what is proved of it.

    Parameters
    ----------
    module : evaluated and frozen; nobody else holds it.
    tree : its certificate, with reasons.
    accepts : what it was made for.
    box_weight : how far it pulls into the box [0, 1], or None.
    """

    module: nn.Module
    tree: CertificateTree
    accepts: Accepts
    box_weight: float | None = None

    @property
    def certificate(self) -> Certificate:
        return self.tree.certificate

    def fitted(self, channels: int) -> Prior:
        """The same for images of so many channels; a gray denoiser is applied channel by channel.

        Raises
        ------
        ValueError : a denoiser for another number of channels.
        """
        expected = self.accepts.channels
        if expected is None or expected == channels:
            return self
        if expected != 1:
            raise ValueError(f"the denoiser takes {expected} channels but the image has {channels}")
        return _certified(Channelwise(self.module))

    def relaxed(self, weight: float) -> Prior:
        """(1 - l) I + l D, l = weight, as a module with its own certificate."""
        return self if weight == 1 else _certified(Relaxed(self.module, weight))

    def at(self, noise_level: float) -> DenoiserAtLevel:
        """x -> D(x, noise_level).

        Raises
        ------
        ValueError : noise_level is not in [0, max_noise_level].
        """
        end = math.inf if self.accepts.max_noise_level is None else self.accepts.max_noise_level
        if not 0 <= noise_level <= end:
            raise ValueError(
                f"denoiser_noise_level={noise_level:.4g} is outside the range [0, {end:.4g}] of the "
                "denoiser: pass a denoiser_noise_level within it, or a denoiser made for stronger noise"
            )
        return DenoiserAtLevel(self.module, float(noise_level))


@dataclass(frozen=True)
class DenoiserAtLevel:
    """The map x -> D(x, noise_level) that an algorithm iterates."""

    module: nn.Module
    noise_level: float

    def __call__(self, x: Tensor) -> Tensor:
        return self.module(x, self.noise_level)

    def rehearse(self, image: Tensor) -> None:
        """Call a copy once on a corner of an image, so that what is no denoiser ends here and not in an iteration.

        Raises
        ------
        Refused : the call fails, or its result is not an image of the same shape and dtype.
        """
        corner = image[:1, :, :64, :64].contiguous()
        name = type(self.module).__name__
        try:
            with torch.no_grad():
                result = copy.deepcopy(self.module)(corner, self.noise_level)
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            reason = " ".join(str(error).split())
            raise Refused(f"{name} could not be called as denoiser(x, sigma) on an image: {reason}") from error
        if not isinstance(result, Tensor) or result.shape != corner.shape or result.dtype != corner.dtype:
            got = f"{tuple(result.shape)} {result.dtype}" if isinstance(result, Tensor) else type(result).__name__
            raise Refused(f"{name} is not a denoiser: it makes {got} of an image {tuple(corner.shape)} {corner.dtype}")


def prior(denoiser: nn.Module | Prior) -> Prior:
    """A copy of a denoiser, evaluated, frozen and certified from its weights; the denoiser itself is left as it is.

    Parameters
    ----------
    denoiser : called as denoiser(x, sigma).

    Raises
    ------
    Refused : no certificate rule speaks of the denoiser, or it is not called as denoiser(x, sigma).
    TypeError : not a torch module, or one that cannot be copied.
    """
    if isinstance(denoiser, Prior):
        return denoiser
    if not isinstance(denoiser, nn.Module):
        raise TypeError(f"a denoiser must be a torch.nn.Module, got {type(denoiser).__name__}")
    try:
        module = copy.deepcopy(denoiser).eval().requires_grad_(False)
    except (RuntimeError, TypeError) as error:
        raise TypeError(f"{type(denoiser).__name__} cannot be copied: {error}") from error
    return _certified(module)


def prepare(denoiser: nn.Module, *, channels: int) -> Prior:
    """`prior(denoiser)` for images of so many channels."""
    return prior(denoiser).fitted(channels)


def _certified(module: nn.Module) -> Prior:
    try:
        tree = certify(module)
    except NotCertified as error:
        raise Refused(f"no theorem covers a denoiser without a certificate: {error}") from error
    _check_signature(module)
    return Prior(module, tree, accepts.of(module), _box_weight(module))


def _check_signature(module: nn.Module) -> None:
    names = [parameter.name for parameter in inspect.signature(module.forward).parameters.values()]
    if len(names) < 2 or names[1] != "sigma":
        raise Refused(
            f"{type(module).__name__} is not a denoiser: a denoiser is called as denoiser(x, sigma), and its forward takes "
            f"({', '.join(names)}). Wrap it in a module whose forward takes x and sigma."
        )
