"""The table of strengths that were chosen on validation photographs, and what they gave there: read, never guessed.

Source: benchmarks/strengths.py, which searched them and wrote data/strengths/strengths.json.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache

from stablenet.bundled import NotBundled, data_path

TABLE = "strengths/strengths.json"


@dataclass(frozen=True)
class Row:
    """What was chosen for one algorithm, rung and noise level.

    Parameters
    ----------
    task : deblurring or denoising.
    rung, algorithm, denoiser : whose it is, by name.
    channels, noise_level : of the photographs and of their noise.
    level : of the denoiser, in units of the noise level.
    strength : of the prior; an energy's weight is strength/level^2.
    psnr : the mean in dB at convergence, over the `pictures`.
    """

    task: str
    rung: str
    algorithm: str
    denoiser: str
    channels: int
    noise_level: float
    level: float
    strength: float
    psnr: float
    pictures: str


@cache
def rows() -> tuple[Row, ...]:
    """The table; empty where none is bundled."""
    try:
        path = data_path(TABLE)
    except NotBundled:
        return ()
    return tuple(Row(**row) for row in json.loads(path.read_text())["rows"])


def chosen(algorithm: str, rung: str, noise_level: float) -> tuple[float, float] | None:
    """Level and strength for a blur, interpolated in the logarithm of the noise level; None where nothing was measured."""
    known = sorted(
        (row.noise_level, row.level, row.strength)
        for row in rows()
        if (row.task, row.algorithm, row.rung) == ("deblurring", algorithm, rung)
    )
    if not known:
        return None
    levels = [noise for noise, _, _ in known]
    place = min(max(noise_level, levels[0]), levels[-1])
    right = next(i for i, noise in enumerate(levels) if noise >= place)
    (a, *low), (b, *high) = known[max(right - 1, 0)], known[right]
    share = 1.0 if a == b else math.log(place / a) / math.log(b / a)
    level, strength = (math.exp((1 - share) * math.log(p) + share * math.log(q)) for p, q in zip(low, high, strict=True))
    return level, strength
