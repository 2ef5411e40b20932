"""What is to be restored: a measurement, the physics behind it, and the part of the unknown image that it shows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor


@dataclass(frozen=True)
class Scene:
    """A measurement and how it came about.

    Parameters
    ----------
    measurement : (1, channels, height, width).
    physics : the map from the unknown image to it, noise aside.
    start : first iterate, of the size of the unknown image.
    reference : the true image if it is known, of the size of the unknown image.
    window : rows and columns of the unknown image that lie under the measurement.
    """

    measurement: Tensor
    physics: LinearPhysics
    start: Tensor
    reference: Tensor | None
    window: tuple[slice, slice]

    def visible(self, image: Tensor) -> Tensor:
        """The part of an unknown-sized image that lies under the measurement."""
        return image[..., self.window[0], self.window[1]]

    def to(self, device: torch.device) -> Scene:
        """The same scene on another device."""
        return replace(
            self,
            measurement=self.measurement.to(device),
            physics=self.physics.to(device),
            start=self.start.to(device),
            reference=None if self.reference is None else self.reference.to(device),
        )
