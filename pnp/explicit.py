"""Denoisers that are the proximal operator of a potential at hand: D(y) = argmin |x - y|^2/2 + R(x), with R and its gradient.

Source: docs/theorems.md, P10; the facts proved of R are `stablenet.potential`, and a proximal operator that is iterated tells
a bound of its error.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from pnp.bounds import Refused
from pnp.wrappers import Channelwise, Clipped, DeepinvDenoiser, Relaxed
from stablenet import potential
from stablenet.certificate import NotCertified
from stablenet.networks.reweighted import Reweighted
from stablenet.potential import Denoised, Potential

Level = float | Tensor


@runtime_checkable
class Iterated(Protocol):
    """A module that iterates: as accurate as it is told, as a root mean square over the entries of an image."""

    def denoise(self, y: Tensor, sigma: Level, *, accuracy: float) -> Denoised: ...


@runtime_checkable
class Explicit(Iterated, Protocol):
    """A module with an explicit potential R(., sigma): (batch,) energies, gradients like x, and the proximal operator."""

    def energy(self, x: Tensor, sigma: Level) -> Tensor: ...

    def gradient(self, x: Tensor, sigma: Level) -> Tensor: ...

    def energy_and_gradient(self, x: Tensor, sigma: Level) -> tuple[Tensor, Tensor]: ...


def potential_of(module: nn.Module) -> Potential | None:
    """What is proved of a module's potential; None where it has none. A gray one on each channel is their sum.

    Raises
    ------
    Refused : the module is altered, so that its rule would not speak of it.
    """
    if type(module) is Channelwise:
        return potential_of(module.denoiser)
    if not potential.rule.covers(module):
        return None
    try:
        return potential.certify(module)
    except NotCertified as error:
        raise Refused(f"no theorem covers the potential: {error}") from error


def is_guided(module: nn.Module) -> bool:
    """Whether the potential is a quadratic whose weights a network has set from a guide."""
    if type(module) is Channelwise:
        return is_guided(module.denoiser)
    return type(module) is Reweighted and module.learned


def energy(module: nn.Module, x: Tensor, sigma: float) -> Tensor:
    """R(x) of each image, (batch,)."""
    if type(module) is Channelwise:
        gray = x.reshape(-1, 1, *x.shape[-2:])
        return energy(module.denoiser, gray, sigma).reshape(len(x), -1).sum(1)
    return _explicit(module).energy(x, sigma)


def energy_and_gradient(module: nn.Module, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """R(x) of each image, (batch,), and its gradient, from one pass forward and one back."""
    if type(module) is Channelwise:
        values, slopes = energy_and_gradient(module.denoiser, x.reshape(-1, 1, *x.shape[-2:]), sigma)
        return values.reshape(len(x), -1).sum(1), slopes.reshape(x.shape)
    return _explicit(module).energy_and_gradient(x, sigma)


def within(module: nn.Module, x: Tensor, sigma: float, accuracy: float) -> tuple[Tensor, Tensor]:
    """D(x, sigma) and a bound of its error, (batch,): at most `accuracy` where it can be chosen, zero where D is a formula."""
    if type(module) is Clipped:  # the projection moves no two points apart
        image, error = within(module.denoiser, x, sigma, accuracy)
        return image.clamp(0, 1), error
    if type(module) is Relaxed:
        image, error = within(module.denoiser, x, sigma, accuracy / module.weight)
        return x.lerp(image, module.weight), module.weight * error
    if type(module) is Channelwise:
        gray = x.reshape(-1, 1, *x.shape[-2:])
        image, error = within(module.denoiser, gray, sigma, accuracy / x.shape[1] ** 0.5)
        return image.reshape(x.shape), error.reshape(len(x), -1).norm(dim=1)
    if type(module) is DeepinvDenoiser:
        return within(module.denoiser, x, sigma, accuracy)
    if _tells_its_error(module):
        found = _iterated(module).denoise(x, sigma, accuracy=accuracy / x[0].numel() ** 0.5)
        return found.image, found.error
    _require_formula(module)
    return module(x, sigma), x.new_zeros(len(x))


def _require_formula(module: nn.Module) -> None:
    """Refuse a module with an iterated proximal operator inside whose error nobody would tell."""
    hidden = [type(inner).__name__ for inner in module.modules() if _tells_its_error(inner)]
    if hidden:
        raise Refused(
            f"{type(module).__name__} is not covered: the {hidden[0]} inside is a proximal operator known up to an error, "
            f"which {type(module).__name__} does not tell. Take the {hidden[0]} itself, or Clipped or Relaxed around it."
        )


def _tells_its_error(module: nn.Module) -> bool:
    """Whether D is iterated, with a bound of the error that is proved by exact class."""
    return potential.rule.covers(module) or potential.bounded_error.covers(module)


def _iterated(module: nn.Module) -> Iterated:
    if potential.bounded_error.covers(module):
        try:
            potential.bounded_error.of(module)
        except NotCertified as error:
            raise Refused(f"nothing bounds the error of {type(module).__name__}: {error}") from error
        if not isinstance(module, Iterated):
            raise Refused(f"{type(module).__name__} tells no error: it needs denoise(y, sigma, accuracy=...)")
        return module
    return _explicit(module)


def _explicit(module: nn.Module) -> Explicit:
    if not isinstance(module, Explicit):
        raise Refused(
            f"{type(module).__name__} has no explicit potential: it needs energy, gradient, energy_and_gradient and denoise."
        )
    return module
