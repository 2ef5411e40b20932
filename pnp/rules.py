"""One register for facts about objects, one rule per exact class, asked at call time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Fact = TypeVar("Fact")


class Rules(Generic[Fact]):
    """A decorator that registers a rule for exact classes, and the facts that the rules give."""

    def __init__(self, fact: str, refusal: type[Exception], remedy: str) -> None:
        self.fact, self.refusal, self.remedy = fact, refusal, remedy
        self._rules: dict[type, Callable[..., Fact]] = {}

    def __call__(self, *classes: type) -> Callable[[Callable[..., Fact]], Callable[..., Fact]]:
        def register(function: Callable[..., Fact]) -> Callable[..., Fact]:
            for cls in classes:
                self._rules[cls] = function
            return function

        return register

    def covers(self, thing: object) -> bool:
        return type(thing) in self._rules

    def of(self, thing: object) -> Fact:
        if not self.covers(thing):
            raise self.refusal(f"{self.fact} of {type(thing).__name__} is unknown. {self.remedy}")
        return self._rules[type(thing)](thing)
