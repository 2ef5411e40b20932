"""`stablenet.pretrained("denoiser-gray")`, and the older names of `stablenet.weights`, `cards` and `bundled`.

The module is callable, so that the function does not hide the module of the same name.
"""

from __future__ import annotations

import sys
from types import ModuleType

from torch import nn

from stablenet.bundled import available, data_path, weights_path
from stablenet.weights import WeightsRefused, load, read_card, save
from stablenet.weights import pretrained as by_name

__all__ = ["WeightsRefused", "available", "data_path", "load", "read_card", "save", "weights_path"]


class _Callable(ModuleType):
    """This module; called, it gives shipped weights by name."""

    def __call__(self, name: str, *, kind: str | None = None) -> nn.Module:
        return by_name(name, kind=kind)


sys.modules[__name__].__class__ = _Callable
