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

from pnp import explicit
from pnp.bounds import Refused
from pnp.facts import Accepts, accepts, pull_into_the_box
from pnp.wrappers import Channelwise, Relaxed
from stablenet.certificate import Certificate, CertificateTree, NotCertified, certify
from stablenet.potential import Potential
from stablenet.rounding import up

REFUSALS = (RuntimeError, TypeError, ValueError, AttributeError, IndexError)


@dataclass(frozen=True)
class Prior:
    """A denoiser made ready: a frozen copy of its own with what is proved of it.

    Parameters
    ----------
    module : evaluated and frozen; nobody else holds it.
    tree : its certificate, with reasons; None where the map itself is not known to be Lipschitz.
    accepts : what it was made for.
    box_weight : how far it pulls into the box [0, 1], or None.
    potential : what is proved of R where it is the proximal operator of a potential at hand, or None.
    """

    module: nn.Module
    tree: CertificateTree | None
    accepts: Accepts
    box_weight: float | None = None
    potential: Potential | None = None

    @property
    def certificate(self) -> Certificate:
        if self.tree is None:
            convexity = math.inf if self.potential is None else self.potential.weak_convexity
            raise Refused(
                f"the proximal operator of {type(self.module).__name__} is not covered: its potential is M-weakly convex with "
                f"M <= {up(convexity)}, and below 1 is needed. Take pnp.Descent(), which needs the gradient alone."
            )
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
        return DenoiserAtLevel(self.module, float(noise_level), self.potential)


@dataclass(frozen=True)
class DenoiserAtLevel:
    """The map x -> D(x, noise_level) that an algorithm iterates, and its potential where it has one."""

    module: nn.Module
    noise_level: float
    potential: Potential | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return self.module(x, self.noise_level)

    def within(self, x: Tensor, accuracy: float) -> tuple[Tensor, Tensor]:
        """D(x) and a bound of its error, (batch,), asked to be at most `accuracy`."""
        return explicit.within(self.module, x, self.noise_level, accuracy)

    def energy(self, x: Tensor) -> Tensor:
        """R(x) of each image, (batch,)."""
        return explicit.energy(self.module, x, self.noise_level)

    def energy_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """R(x) of each image, (batch,), and its gradient."""
        return explicit.energy_and_gradient(self.module, x, self.noise_level)

    def rehearse(self, image: Tensor) -> None:
        """Call a copy once on a corner of an image, so that what is no denoiser ends here and not in an iteration.

        Of a potential its gradient is called, which all its algorithms need.

        Raises
        ------
        Refused : the call fails, or its result is not an image of the same shape and dtype.
        """
        corner = image[:1, :, :64, :64].contiguous()
        name = type(self.module).__name__
        try:
            result = self._tried(corner)
        except REFUSALS:  # perhaps it is frozen at a guide of the whole image's size
            corner = image
            try:
                result = self._tried(image)
            except REFUSALS as error:
                reason = " ".join(str(error).split())
                raise Refused(f"{name} could not be called as denoiser(x, sigma) on an image: {reason}") from error
        if not isinstance(result, Tensor) or result.shape != corner.shape or result.dtype != corner.dtype:
            got = f"{tuple(result.shape)} {result.dtype}" if isinstance(result, Tensor) else type(result).__name__
            raise Refused(f"{name} is not a denoiser: it makes {got} of an image {tuple(corner.shape)} {corner.dtype}")

    @torch.no_grad()
    def _tried(self, image: Tensor) -> object:
        module = copy.deepcopy(self.module)
        if self.potential is None:
            return module(image, self.noise_level)
        return explicit.energy_and_gradient(module, image, self.noise_level)[1]


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
    potential = explicit.potential_of(module)
    tree = _tree(module) if potential is None else _proximal(module, potential)
    _check_signature(module)
    return Prior(module, tree, accepts.of(module), pull_into_the_box(module), potential)


def _tree(module: nn.Module) -> CertificateTree:
    try:
        return certify(module)
    except NotCertified as error:
        raise Refused(f"no theorem covers a denoiser without a certificate: {error}") from error


def _proximal(module: nn.Module, potential: Potential) -> CertificateTree | None:
    """What the potential alone proves of its proximal operator; None where it has none."""
    if not potential.has_proximal_map:
        return None
    kind = "convex" if potential.is_convex else "weakly convex"
    reason = f"the proximal operator of a {kind} potential: {potential.reason}"
    return CertificateTree(type(module).__name__, potential.proximal_certificate, reason)


def _check_signature(module: nn.Module) -> None:
    names = [parameter.name for parameter in inspect.signature(module.forward).parameters.values()]
    if len(names) < 2 or names[1] != "sigma":
        raise Refused(
            f"{type(module).__name__} is not a denoiser: a denoiser is called as denoiser(x, sigma), and its forward takes "
            f"({', '.join(names)}). Wrap it in a module whose forward takes x and sigma."
        )
