"""Is a physics what the code of its class says, and is it still what it was when the problem was posed?

A rule reads the attributes of an exact class, so it speaks only of instances whose methods and parts are those that the
constructors make: a replaced method, a function passed for U or V, or a hook is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from types import BuiltinMethodType, CodeType, FunctionType, MethodType

from deepinv.physics import LinearPhysics, adjoint_function
from deepinv.physics.functional import IRadon, Radon, RampFilter
from torch import Tensor, nn

from pnp.bounds import Refused
from stablenet.rules import require_unaltered

REMEDY = "Pass smoothness=, an upper bound of |A|^2 (a power iteration gives a lower bound, which is not enough)."
_NOT_THE_OPERATOR = {"noise_model", "sensor_model", "gen"}
_SETTINGS_OF_SOLVERS = {"max_iter", "tol", "solver", "training", "implicit_backward_solver"}
_REFRESHED_BY_EVERY_CALL = {
    "Fh",  # of Downsampling, computed from its filter for the size of the image
    "Fhc",
    "Fh2",
    "imsize_dynamic",
    "_auto_grad_adjoint_fn",  # of Tomography, for the size of the batch
    "_auto_grad_adjoint_input_shape",
    "_device_holder",
}
_PARTS_OF_DEEPINV = (Radon, IRadon, RampFilter)  # of Tomography, whose rule looks into them
_IGNORED = _NOT_THE_OPERATOR | _SETTINGS_OF_SOLVERS | _REFRESHED_BY_EVERY_CALL


def require_as_constructed(physics: nn.Module) -> None:
    """Refuse an instance of a class of deepinv whose operator uses functions that no constructor of the class makes.

    Raises
    ------
    Refused : also what `stablenet.rules.require_unaltered` refuses: replaced methods, hooks, tensors of other classes.
    """
    require_unaltered(physics, Refused)
    cls = type(physics)
    for name, value in (*vars(physics).items(), *physics.named_children()):
        if name in _NOT_THE_OPERATOR or _is_automatic_adjoint(value) or type(value) in _PARTS_OF_DEEPINV:
            continue
        if callable(value) and not made_by_constructor(value, cls):
            raise Refused(
                f"the norm of {cls.__name__} is unknown: its operator uses {name.lstrip('_')}, a function that was passed "
                f"or set from outside. {REMEDY}"
            )


def _is_automatic_adjoint(value: object) -> bool:
    """Made by deepinv.physics.adjoint_function, as Tomography does at its first adjoint."""
    owner = value.__self__ if isinstance(value, (BuiltinMethodType, MethodType)) else None
    name = (adjoint_function.__module__, "adjoint_function.<locals>.Adjoint")
    return isinstance(owner, type) and (owner.__module__, owner.__qualname__) == name


def made_by_constructor(value: object, cls: type) -> bool:
    """Whether a function is written in a constructor of the class or of its parents, or is a default there."""
    for parent in cls.__mro__:
        constructor = vars(parent).get("__init__")
        if not isinstance(constructor, FunctionType):
            continue
        defaults = (*(constructor.__defaults__ or ()), *(constructor.__kwdefaults__ or {}).values())
        if any(value is default for default in defaults):
            return True
        codes = [constant for constant in constructor.__code__.co_consts if isinstance(constant, CodeType)]
        if isinstance(value, FunctionType) and any(value.__code__ is code for code in codes):
            return True
    return False


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """The tensors and settings that make an operator, as they were: references and versions, nothing is copied."""

    tensors: dict[str, tuple[Tensor, int]]
    settings: dict[str, object]

    @classmethod
    def of(cls, physics: LinearPhysics, measurement: Tensor) -> Fingerprint:
        tensors = {name: (tensor, version(tensor)) for name, tensor in _tensors(physics, measurement)}
        return cls(tensors, dict(_settings(physics)))

    def changed(self, physics: LinearPhysics, measurement: Tensor) -> str | None:
        """The name of something that is not as it was, or None."""
        now = dict(_tensors(physics, measurement))
        for name in self.tensors.keys() | now.keys():
            if name not in now or name not in self.tensors:
                return name
            before, written = self.tensors[name]
            if version(before) != written or not (now[name] is before or _equal(now[name], before)):
                return name
        settings = dict(_settings(physics))
        different = [name for name in self.settings.keys() | settings.keys() if not _same(name, self.settings, settings)]
        return min(different) if different else None


def version(tensor: Tensor) -> int:
    """How often a tensor was written in place; 0 for a tensor made in inference mode, which does not count."""
    return 0 if tensor.is_inference() else tensor._version


def _tensors(physics: LinearPhysics, measurement: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield "the measurement", measurement
    for named in (physics.named_buffers, physics.named_parameters):
        for name, tensor in named():
            if name.split(".")[0] not in _IGNORED:
                yield name, tensor
    if _is_of_deepinv(physics):
        yield from ((name, value) for name, value in vars(physics).items() if isinstance(value, Tensor))


def _is_of_deepinv(physics: LinearPhysics) -> bool:
    return type(physics).__module__.split(".")[0] == "deepinv"


def _settings(physics: LinearPhysics) -> Iterator[tuple[str, object]]:
    """Numbers, words and functions of a physics of deepinv; a user's class may count or remember what it likes."""
    if not _is_of_deepinv(physics):
        return
    for name, value in vars(physics).items():
        kept = isinstance(value, (bool, int, float, str, tuple, list)) or callable(value) or value is None
        parts = isinstance(value, dict) and value and all(callable(part) for part in value.values())
        if name not in _IGNORED and (kept or parts):
            yield name, copy(value) if isinstance(value, (dict, list)) else value


def _same(name: str, before: dict[str, object], now: dict[str, object]) -> bool:
    missing: Callable[[], None] = lambda: None  # noqa: E731
    return bool(before.get(name, missing) == now.get(name, missing))


def _equal(a: Tensor, b: Tensor) -> bool:
    alike = a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
    return alike and bool((a == b).all())
