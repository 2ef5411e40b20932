"""What a card may hold: strings, finite numbers, lists, and tableaus by name or as exact tables; all else is refused by name.

Source: docs/theorems.md, C7; the methods by name are `stablenet.tableaus`.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from reprlib import repr as short
from typing import Any

from stablenet import tableaus
from stablenet.butcher import ButcherTableau

LARGEST = 4096
"""The largest integer of a card, unless a tensor of the weights has a longer side."""
STAGES = 128
OWN_ENTRIES: dict[str, tuple[type, str]] = {
    "name": (str, "a string"),
    "kind": (str, "a string"),
    "format": (int, "an integer"),
    "architecture": (dict, "an object"),
    "certificate": (dict, "an object"),
    "sha256": (str, "a string"),
    "parameters": (int, "an integer"),
}
FRACTION = re.compile(r"-?\d{1,400}(/[1-9]\d{0,399})?")
METHODS = {t.name: t for t in vars(tableaus).values() if type(t) is ButcherTableau}


class CardRefused(ValueError):
    """Raised when a card cannot say what a network is, or says what no network can be; the message names the entry."""


def expect(value: Any, cls: type, where: str, what: str) -> Any:
    """The value, if it is of exactly that class; `what` says what is needed."""
    if type(value) is not cls:
        raise CardRefused(f"{where} is {short(value)}, where {what} is needed")
    return value


def write_tableau(tableau: ButcherTableau) -> Any:
    """The name of a method ("Heun", "3 x Euler", "SSPRK(5,2)"), or {"name", "a", "b"} with its entries as fractions."""
    if tableau.stages > STAGES:
        raise CardRefused(f"a tableau of {tableau.stages} stages is too long for a card: at most {STAGES}")
    if _method(tableau.name) == tableau:
        return tableau.name
    return {"name": tableau.name, "a": [[str(x) for x in row] for row in tableau.a], "b": [str(x) for x in tableau.b]}


def _method(name: str) -> ButcherTableau | None:
    """The method called that: of `tableaus`, "3 x Heun" (substeps of one) or "SSPRK(5,2)"; None if there is none."""
    if name in METHODS:
        return METHODS[name]
    if (substeps := re.fullmatch(r"([1-9]\d{0,2}) x (.+)", name)) and substeps[2] in METHODS:
        count, method = int(substeps[1]), METHODS[substeps[2]]
        return method.substeps(count) if count * method.stages <= STAGES else None
    if optimal := re.fullmatch(r"SSPRK\(([1-9]\d{0,2}),2\)", name):
        return tableaus.ssprk2(int(optimal[1])) if 2 <= int(optimal[1]) <= STAGES else None
    return None


def read_number(hint: type, value: object, where: str, largest: int) -> int | float:
    """An integer of at most `largest`, or a finite float; true and false are no numbers."""
    if type(value) is int and (hint is float or abs(value) <= largest):
        try:
            return hint(value)
        except OverflowError:
            pass
    if type(value) is float and hint is float and math.isfinite(value):
        return value
    what = "a finite number" if hint is float else f"an integer of at most {largest}"
    raise CardRefused(f"{where} is {short(value)}, where {what} is needed")


def read_tableau(value: object, where: str) -> ButcherTableau:
    """The tableau that `write_tableau` wrote, exactly."""
    if type(value) is str:
        method = _method(value)
        if method is None:
            raise CardRefused(f"{where} is {short(value)}, where one of {', '.join(METHODS)} or a table is needed")
        return method
    entries = expect(value, dict, where, "the name of a method or a table")
    if set(entries) != {"name", "a", "b"}:
        raise CardRefused(f"{where} is {short(value)}, where a table with name, a and b is needed")
    name = expect(entries["name"], str, f"{where}.name", "a string")
    rows = [_read_row(row, f"{where}.a[{i}]") for i, row in enumerate(expect(entries["a"], list, f"{where}.a", "a list"))]
    try:
        return ButcherTableau(rows, _read_row(entries["b"], f"{where}.b"), name)
    except ValueError as error:
        raise CardRefused(f"{where} is {short(value)}: {error}") from None


def _read_row(value: object, where: str) -> list[Fraction]:
    row = expect(value, list, where, "a list")
    if len(row) > STAGES or not all(type(x) is str and FRACTION.fullmatch(x) for x in row):
        raise CardRefused(f'{where} is {short(value)}, where fractions as "1/3" are needed, at most {STAGES}')
    return [Fraction(x) for x in row]


def checked(content: object) -> dict[str, Any]:
    """A card's own entries, each of its type; certificate as floats, averagedness None where none is stated.

    Raises
    ------
    CardRefused : naming the entry, its value and what is needed there.
    """
    card = {"kind": "denoiser", "name": "", "parameters": 0, **expect(content, dict, "the card", "an object")}
    for name, (cls, what) in OWN_ENTRIES.items():
        expect(card.get(name), cls, name, what)
    stated = card["certificate"]
    alpha = stated.get("averagedness")
    card["certificate"] = {
        "lipschitz": _stated(stated.get("lipschitz"), "certificate.lipschitz"),
        "averagedness": None if alpha is None else _stated(alpha, "certificate.averagedness"),
    }
    return card


def _stated(value: object, where: str) -> float:
    """A float; NaN and infinity pass, as a certificate that states them is refused for what it states."""
    return value if type(value) is float else float(read_number(float, value, where, 0))
