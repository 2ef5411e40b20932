"""One register for facts that are proved by exact class, and the gate in front of all of them.

Source: a rule speaks of what one class computes (docs/theorems.md, C7); a subclass, a hook or a replaced method may compute
something else, and so does a weight that is complex or of a tensor subclass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

Fact = TypeVar("Fact")
RuleOf = TypeVar("RuleOf", bound=Callable[[Any], Any])


class Rules(Generic[Fact]):
    """A register of one kind of fact: functions of an object, by its exact class, asked when the fact is needed.

    Parameters
    ----------
    fact : what is proved, as "certificate rule"; it completes "no ... for <class>".
    refusal : the exception raised where nothing is known.
    remedy : what to do then; "{name}" stands for the name of the class, "{known}" for the classes that have a rule.
    """

    def __init__(self, fact: str, refusal: type[Exception], remedy: str) -> None:
        self.fact, self.refusal, self.remedy = fact, refusal, remedy
        self._rules: dict[type, Callable[[Any], Fact]] = {}
        self._others: list[Callable[[Any], Fact | None]] = []

    def __call__(self, *classes: type) -> Callable[[RuleOf], RuleOf]:
        """Register the rule of exact classes; a subclass does not inherit it, a later rule replaces an earlier one."""

        def register(function: RuleOf) -> RuleOf:
            for cls in classes:
                self._rules[cls] = function
            return function

        return register

    def otherwise(self, other: Callable[[Any], Fact | None]) -> Callable[[Any], Fact | None]:
        """Ask `other` where no rule is registered; it gives the fact, or None when it has none either."""
        self._others.append(other)
        return other

    def covers(self, thing: object) -> bool:
        """Whether the exact class has a rule of its own here."""
        return type(thing) in self._rules

    def concerns(self, thing: object) -> bool:
        """Whether the class or a parent has a rule: `of` then gives the fact or says which proof is not inherited."""
        return any(cls in self._rules for cls in type(thing).__mro__)

    def known(self) -> tuple[type, ...]:
        """The classes that have a rule."""
        return tuple(self._rules)

    def of(self, thing: Any) -> Fact:
        """The fact, by the rule of the exact class, computed anew from the object as it is.

        Raises
        ------
        refusal : no rule speaks of the class, or the instance is not what its class says (`require_unaltered`).
        """
        rule = self._rules.get(type(thing))
        if rule is not None:
            require_unaltered(thing, self.refusal)
            return rule(thing)
        for other in self._others:
            fact = other(thing)
            if fact is not None:
                return fact
        raise self.refusal(self._unknown(type(thing)))

    def _unknown(self, cls: type) -> str:
        parents = [c.__name__ for c in cls.__mro__[1:] if c in self._rules]
        hint = f" (a subclass does not inherit the proof of {parents[0]})" if parents else ""
        known = ", ".join(sorted(c.__name__ for c in self._rules))
        remedy = self.remedy.format(name=cls.__name__, known=known)
        return f"no {self.fact} for {cls.__module__}.{cls.__qualname__}{hint}: {remedy}"


class Altered(TypeError):
    """Raised by `require_unaltered` when no other refusal is asked for."""


def require_unaltered(thing: object, refusal: type[Exception] = Altered) -> None:
    """Refuse an object that does not compute what its class says.

    Looked at: methods replaced on the instance, forward hooks (its own and torch's global ones), a compiled call, parameters
    that are not plain real tensors, buffers that are not plain tensors. Children are the business of the rule that uses them.

    Raises
    ------
    refusal : naming the class and what was found.
    """
    cls = type(thing)
    found = _alteration(thing)
    if found is not None:
        raise refusal(f"{cls.__name__} carries {found}, so its rule would not speak of what it computes: remove it")


def _alteration(thing: object) -> str | None:
    cls = type(thing)
    replaced = [name for name in getattr(thing, "__dict__", {}) if callable(getattr(cls, name, None))]
    if replaced:
        return f"a replaced {', '.join(replaced)}"
    if not isinstance(thing, nn.Module):
        return None
    if thing._forward_hooks or thing._forward_pre_hooks:
        return "forward hooks"
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return "torch's global forward hooks"
    if thing._compiled_call_impl is not None:
        return "a compiled call (module.compile), whose backend may compute anything"
    return next(_bad_tensors(thing), None)


def _bad_tensors(module: nn.Module) -> Iterator[str]:
    for name, parameter in module._parameters.items():
        if parameter is None:
            continue
        if type(parameter) is not nn.Parameter:
            yield f"a {type(parameter).__name__} as {name}, where a plain torch.nn.Parameter is needed"
        elif not parameter.dtype.is_floating_point:
            yield f"a {parameter.dtype} {name}, where real floating-point numbers are needed"
    for name, buffer in module._buffers.items():
        if buffer is not None and type(buffer) is not Tensor:
            yield f"a {type(buffer).__name__} as {name}, where a plain tensor is needed"
    for name in ("weight", "bias"):
        if isinstance(vars(module).get(name), Tensor):
            yield f"{name} as a plain attribute, where a registered parameter is needed"


def real_weight(weight: Tensor, refusal: type[Exception] = ValueError) -> Tensor:
    """The same tensor, if it is a plain real floating-point one.

    Raises
    ------
    refusal : complex or integer entries, or a tensor subclass.
    """
    if type(weight) not in (Tensor, nn.Parameter) or not weight.dtype.is_floating_point:
        kind = f"{type(weight).__name__} of {weight.dtype}" if isinstance(weight, torch.Tensor) else type(weight).__name__
        raise refusal(f"a weight must be a plain real floating-point tensor, got a {kind}: convert it first")
    return weight
