"""What a theorem is told of an operator: a number, why it bounds, and who says so; or a refusal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Source = Literal["proved", "supplied", "probable"]


class Refused(ValueError):
    """No theorem covers the request; the message says what was asked, which hypothesis failed and what would work."""


@dataclass(frozen=True)
class Bound:
    """A bound of a constant of the problem, which the guarantee prints with its source.

    Parameters
    ----------
    value : finite, >= 0; rounded to the safe side.
    reason : why it holds, in a few words.
    source : "proved" from the physics itself, "supplied" by the caller and only tested, or "probable": it holds with a
        probability that the reason states.
    """

    value: float
    reason: str
    source: Source = "proved"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value >= 0):
            raise ValueError(f"a bound must be finite and >= 0, got {self.value} ({self.reason})")

    def __str__(self) -> str:
        return f"{self.value:.6g} ({self.reason}; {self.source})"
