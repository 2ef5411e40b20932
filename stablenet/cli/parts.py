"""How tableaus and policies are named on the command line: --tableau Heun, --policy substeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from stablenet import tableaus
from stablenet.butcher import ButcherTableau
from stablenet.enforcement import Policy, Rescale, Step, Substeps

METHODS = {value.name.lower(): value for value in vars(tableaus).values() if type(value) is ButcherTableau}
POLICIES: dict[str, Policy] = {"rescale": Rescale(), "step": Step(), "substeps": Substeps()}
REGISTRY = ConstructorRegistry()


def _named(kind: type, values: Mapping[str, Any], metavar: str) -> Callable[[PrimitiveTypeInfo], Any]:
    """A tyro rule: values of `kind` are given by their names, in any case."""

    def value_of(words: list[str]) -> Any:
        if words[0].lower() not in values:
            raise ValueError(f"{words[0]!r} is none of {', '.join(values)}")
        return values[words[0].lower()]

    def rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if info.type is not kind:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=value_of,
            is_instance=lambda value: value in values.values(),
            str_from_instance=lambda value: [next(name for name, known in values.items() if known == value)],
        )

    return rule


REGISTRY.primitive_rule(_named(ButcherTableau, METHODS, "TABLEAU"))
REGISTRY.primitive_rule(_named(Policy, POLICIES, "{" + ",".join(POLICIES) + "}"))
