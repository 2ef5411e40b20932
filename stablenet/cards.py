"""Cards: what a network is, as JSON, so that it can be built again: its kind, its architecture, its parts by name.

Source: docs/theorems.md, C7: weights mean a function only together with tableau, policy and shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from reprlib import repr as short
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from torch import nn

from stablenet.butcher import ButcherTableau
from stablenet.certificate import CertificateTree
from stablenet.enforcement import Rescale, Step, Substeps
from stablenet.entries import LARGEST, CardRefused, expect, read_number, read_tableau, write_tableau
from stablenet.networks.architectures import ClassifierArchitecture, DenoiserArchitecture, RidgeArchitecture
from stablenet.networks.classifier import Classifier
from stablenet.networks.denoiser import Denoiser
from stablenet.networks.guided import Guidance, Guided
from stablenet.networks.ridge import Ridge
from stablenet.networks.symmetrized import Symmetrized
from stablenet.rules import Rules

Network = TypeVar("Network", bound=type[nn.Module])
Part = TypeVar("Part", bound=type)


@dataclass(frozen=True)
class Kind:
    """How networks of one exact class stand in a card; made by `kind`.

    architecture : the frozen dataclass that `describe` finds in a network and `build` makes a network of.
    role : what it can be used as ("denoiser", "classifier").
    lacks : what a certificate lacks to be worth a card, or None.
    """

    name: str
    architecture: type
    role: str
    describe: Callable[[Any], Any]
    build: Callable[[Any], nn.Module]
    lacks: Callable[[CertificateTree], str | None]


kinds: Rules[Kind] = Rules("kind of card", CardRefused, "known are {known}; register it with @stablenet.cards.kind")
_by_name: dict[str, Kind] = {}
_parts: dict[str, type] = {}


def kind(
    name: str,
    architecture: type,
    *,
    role: str | None = None,
    describe: Callable[[Any], Any] = lambda network: network.architecture,
    build: Callable[[Any], nn.Module] | None = None,
    lacks: Callable[[CertificateTree], str | None] = lambda tree: None,
) -> Callable[[Network], Network]:
    """Let networks of the decorated class be saved, shipped and loaded as `name`.

    By default the class keeps its architecture, a frozen dataclass, as `network.architecture`, and is built by
    cls(architecture). Its fields are annotated: int, float, bool, str, a tableau, a policy or another `part`, a network that
    has a kind, tuples of them, or one of them or None.
    """

    def register(cls: Network) -> Network:
        own = Kind(name, architecture, role or name, describe, build or cls, lacks)
        kinds(cls)(lambda network: own)
        _by_name[name] = own
        return cls

    return register


def part(name: str) -> Callable[[Part], Part]:
    """Let the decorated frozen dataclass stand in a card as {"name": name, its fields}."""

    def register(cls: Part) -> Part:
        _parts[name] = cls
        return cls

    return register


def named(name: str) -> Kind:
    """The kind of that name.

    Raises
    ------
    CardRefused : there is none.
    """
    if name not in _by_name:
        raise CardRefused(f"kind is {short(name)}, where one of {', '.join(_by_name)} is needed")
    return _by_name[name]


def known() -> tuple[str, ...]:
    """The names of all kinds."""
    return tuple(_by_name)


def describe(network: nn.Module) -> dict[str, Any]:
    """{"kind": ..., "architecture": ...} of a network, as JSON; `build` makes a network of that shape of it.

    Raises
    ------
    CardRefused : its class has no kind, the instance is altered, or a part of it has no name.
    """
    own = kinds.of(network)
    architecture = own.describe(network)
    if type(architecture) is not own.architecture:
        raise CardRefused(f"a {own.name} with architecture {short(architecture)} has no card")
    largest = max([LARGEST, *(side for weight in network.parameters() for side in weight.shape)])
    return {"kind": own.name, "architecture": write_fields(architecture, largest)}


def build(kind_name: str, entries: object, *, largest: int = LARGEST, format: int = 2) -> nn.Module:
    """A network with the architecture of a card, its weights as at the start of training.

    Cards of format 1 lack tableau and policy, which were then always the default ones.

    Raises
    ------
    CardRefused : naming the entry, its value and what is needed there.
    """
    own = named(kind_name)
    architecture = read_fields(own.architecture, entries, "architecture", max(largest, LARGEST), needed=format > 1)
    return own.build(architecture)


def _write(value: Any, largest: int) -> Any:
    """A value as JSON that `_read` takes."""
    if value is None or type(value) in (bool, str) or (type(value) is float and math.isfinite(value)):
        return value
    if type(value) is int and abs(value) <= largest:
        return value
    if type(value) in (tuple, list):
        return [_write(v, largest) for v in value]
    if type(value) is ButcherTableau:
        return write_tableau(value)
    if isinstance(value, nn.Module):
        return describe(value)
    for name, cls in _parts.items():
        if type(value) is cls:
            return {"name": name, **write_fields(value, largest)}
    raise CardRefused(
        f"no card can hold {short(value)}: numbers must be finite, integers at most {largest}, and a class of its own is "
        "registered with @stablenet.cards.part"
    )


def write_fields(value: Any, largest: int = LARGEST) -> dict[str, Any]:
    """The fields of a frozen dataclass, as an architecture, as JSON that `read_fields` takes."""
    return {f.name: _write(getattr(value, f.name), largest) for f in fields(value)}


def read_fields(cls: type, value: object, where: str, largest: int = LARGEST, *, needed: bool = False) -> Any:
    """An instance of a dataclass from a JSON object with its fields, all of them where `needed`; errors name `where`."""
    entries = expect(value, dict, where, "an object")
    names = [f.name for f in fields(cls)]
    unknown, missing = [e for e in entries if e not in names], [n for n in names if n not in entries]
    if unknown:
        raise CardRefused(f"{where} has an entry {short(unknown[0])}, where {', '.join(names)} are known")
    if missing and needed:
        raise CardRefused(f"{where}.{missing[0]} is missing")
    hints = get_type_hints(cls)
    values = {name: _read(hints[name], value, f"{where}.{name}", largest) for name, value in entries.items()}
    try:
        return cls(**values)
    except (ValueError, TypeError, OverflowError) as error:
        raise CardRefused(f"{where} is {short(entries)}: {error}") from None


def _read(hint: Any, value: object, where: str, largest: int) -> Any:
    """A value of the annotated type from JSON."""
    if get_origin(hint) is UnionType:
        options = get_args(hint)
        if value is None and NoneType in options:
            return None
        return _read(next(o for o in options if o is not NoneType), value, where, largest)
    if get_origin(hint) is tuple:
        return _read_tuple(get_args(hint), value, where, largest)
    if hint in (int, float):
        return read_number(hint, value, where, largest)
    if hint in (bool, str):
        return expect(value, hint, where, "a string" if hint is str else "true or false")
    if hint is ButcherTableau:
        return read_tableau(value, where)
    entries = expect(value, dict, where, "an object")
    if isinstance(hint, type) and issubclass(hint, nn.Module):
        name = expect(entries.get("kind"), str, f"{where}.kind", "a string")
        return build(name, entries.get("architecture"), largest=largest)
    cls = _parts.get(expect(entries.get("name"), str, f"{where}.name", "a string"))
    if cls is None:
        raise CardRefused(f"{where}.name is {short(entries['name'])}, where one of {', '.join(_parts)} is needed")
    return read_fields(cls, {k: v for k, v in entries.items() if k != "name"}, where, largest, needed=True)


def _read_tuple(items: tuple[Any, ...], value: object, where: str, largest: int) -> tuple[Any, ...]:
    values = expect(value, list, where, "a list")
    hints = [items[0]] * len(values) if items[-1] is Ellipsis else list(items)
    if len(values) != len(hints) or len(values) > LARGEST:
        raise CardRefused(f"{where} is {short(value)}, where a list of {len(hints)} is needed")
    return tuple(_read(hint, v, f"{where}[{k}]", largest) for k, (hint, v) in enumerate(zip(hints, values, strict=True)))


def _averaged(tree: CertificateTree) -> str | None:
    return None if tree.certificate.is_averaged else "it is not certified averaged"


def _nonexpansive_body(tree: CertificateTree) -> str | None:
    return None if tree.children[0].certificate.is_nonexpansive else "its body is not certified nonexpansive"


@dataclass(frozen=True)
class Symmetrization:
    """What a `Symmetrized` is made of."""

    denoiser: nn.Module
    elements: int


part("step")(Step)
part("substeps")(Substeps)
part("rescale")(Rescale)
kind("denoiser", DenoiserArchitecture, lacks=_averaged)(Denoiser)
kind("ridge", RidgeArchitecture, role="denoiser")(Ridge)
kind("guided", Guidance, role="denoiser", describe=lambda network: network.guidance)(Guided)
kind("classifier", ClassifierArchitecture, lacks=_nonexpansive_body)(Classifier)
kind(
    "symmetrized",
    Symmetrization,
    role="denoiser",
    describe=lambda network: Symmetrization(network.denoiser, network.elements),
    build=lambda made_of: Symmetrized(made_of.denoiser, made_of.elements),
    lacks=_averaged,
)(Symmetrized)
