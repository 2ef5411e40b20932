"""What tells one set of training images from another, so that a run does not go on with other images unnoticed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
from torch import Tensor

from stablenet.images.photographs import Items

SAMPLES = 64


@dataclass(frozen=True)
class Fingerprint:
    """name : of the source, for messages. count : of items. digest : of up to 64 of them, evenly spaced; "" where an item
    is not the same at every reading."""

    name: str
    count: int
    digest: str

    def matches(self, other: Fingerprint) -> bool:
        """Whether both are of the same images, whatever they are called."""
        return self.count == other.count and self.digest == other.digest

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    def __str__(self) -> str:
        return f"{self.name} ({self.count} items, digest {self.digest[:12] or 'unknown'})"


def take(items: Items, name: str) -> Fingerprint:
    """The fingerprint of a dataset: sha256 of shapes, kinds and bytes."""
    count = len(items)
    digest = hashlib.sha256()
    for k in sorted({round(k * (count - 1) / (SAMPLES - 1)) for k in range(SAMPLES)} if count else ()):
        digest.update(_content(items[k]))
    steady = not count or _content(items[0]) == _content(items[0])
    return Fingerprint(name, count, digest.hexdigest() if steady else "")


def _content(item: object) -> bytes:
    if isinstance(item, tuple | list):
        return b"".join(_content(part) for part in item)
    array = item.detach().cpu().numpy() if isinstance(item, Tensor) else np.asarray(item)
    return f"{array.dtype}{array.shape}".encode() + hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
