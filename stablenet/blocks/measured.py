"""The certified norm of a map, measured when asked for and remembered for as long as its weight is the same.

Source: docs/theorems.md, N1 and E1; a step that is a function of the weights must never be older than they are.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from stablenet import spectral
from stablenet.linear import WeightedMap

SAMPLED = 1024


class MeasuredNorm:
    """The certified upper bound of |A| of the present weight, measured again whenever the weight is not the one remembered.

    Torch counts changes in place but not those through `weight.data`, so a sample of about `SAMPLED` entries is compared too
    (all of them, of small weights); `forget` makes sure. A copy remembers nothing.
    """

    def __init__(self) -> None:
        self._weight: tuple[object, ...] | None = None
        self._sample: Tensor | None = None
        self._norm = 0.0

    def of(self, linear: WeightedMap) -> float:
        """The bound of a map, as it is now.

        Raises
        ------
        ValueError : the weight holds NaN or infinity.
        UnboundedError : no theorem bounds the norm.
        """
        weight = linear.weight
        identity, sample = _identity(linear), _sampled(weight)
        if identity != self._weight or self._sample is None or not torch.equal(sample, self._sample):
            self.forget()
            self._norm = spectral.upper_bound(cast(nn.Module, linear))
            self._weight, self._sample = identity, sample.clone()
        return self._norm

    def forget(self) -> None:
        """Measure at the next call whatever the weight looks like."""
        self._weight = None

    def __deepcopy__(self, memo: dict[int, object]) -> MeasuredNorm:
        return MeasuredNorm()

    def __reduce__(self) -> tuple[type[MeasuredNorm], tuple[()]]:
        return MeasuredNorm, ()


def _identity(linear: WeightedMap) -> tuple[object, ...]:
    """What changes with the map or its weight: objects, place in memory, torch's count of changes, shape, precision, device."""
    weight = linear.weight
    version = None if weight.is_inference() else weight._version
    return id(linear), id(weight), weight.data_ptr(), version, weight.shape, weight.dtype, weight.device


def _sampled(weight: nn.Parameter) -> Tensor:
    flat = weight.detach().flatten()
    return flat[:: 1 + len(flat) // SAMPLED]
