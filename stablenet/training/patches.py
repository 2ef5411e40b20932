"""What recipes for denoisers share: patches of photographs with noise, and how errors are counted.

Source: the loss weights are those of [Sherry2024]'s practice: errors count in units of the noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from stablenet.training.losses import ERRORS
from stablenet.training.precision import check_precision
from stablenet.training.schedule import LearningSchedule


class OfImages(Protocol):
    """What patches need to know of an architecture."""

    @property
    def channels(self) -> int: ...

    @property
    def max_noise_level(self) -> float: ...


@dataclass(frozen=True)
class PatchRecipe:
    """A recipe but for its architecture.

    The loss is the mean over a batch of mean(error(D(y, s) - x)) / (s + least_level)^weight_power, with s uniform in
    [0, max_noise_level] (or always `noise_level`).
    """

    architecture: OfImages
    noise_level: float | None = None
    """Train at this level alone instead of all levels up to the largest."""
    start: str | None = None
    """Weights to start from, a shipped name or a path (`grown` of the network); none: a tight frame of waves."""
    patch_size: int = 48
    margin: int = 0
    """Pixels next to a patch's border that the loss leaves out: there the zero padding rules, unlike in a large image."""
    batch_size: int = 16
    stratified: bool = False
    """Draw one noise level from each of batch_size equal parts of the range, which steadies small batches."""
    error: str = "square"
    """What an error of a pixel counts: square, absolute or charbonnier. Absolute ones want half the weight_power."""
    flat_share: float = 0.0
    """The chance of a patch to be one constant gray or color, so that what is left of noise there counts as much."""
    weight_power: float = 1.5
    least_level: float = 2 / 255
    """Keeps the weight of images without noise finite."""
    seed: int = 0
    precision: str = "auto"
    """32-true, bf16-mixed (convolutions in bf16, images and weights kept in float32), or auto: bf16-mixed where it is fast."""
    schedule: LearningSchedule = LearningSchedule(steps=1000, validate_every=250)

    def __post_init__(self) -> None:
        a = self.architecture
        if a.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (gray) or 3 (color) for photographs, got {a.channels}")
        if self.patch_size < 8 or self.batch_size < 1:
            raise ValueError(f"patch_size must be >= 8 and batch_size >= 1, got {self.patch_size}, {self.batch_size}")
        if not 0 <= 2 * self.margin < self.patch_size:
            raise ValueError(f"margin must be >= 0 and below half the patch_size {self.patch_size}, got {self.margin}")
        if self.noise_level is not None and not 0 < self.noise_level <= a.max_noise_level:
            raise ValueError(f"noise_level must lie in (0, {a.max_noise_level:.4g}], got {self.noise_level}")
        if self.error not in ERRORS or not 0 <= self.flat_share < 1:
            raise ValueError(f"error must be {', '.join(ERRORS)}, flat_share in [0, 1), got {self.error!r}, {self.flat_share}")
        if not self.least_level > 0:
            raise ValueError(f"least_level must be positive, got {self.least_level}")
        check_precision(self.precision)

    def noise_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) standard deviations for one batch."""
        if self.noise_level is not None:
            return torch.full((count,), self.noise_level)
        level = torch.rand(count, generator=generator)
        return self.architecture.max_noise_level * ((level + torch.arange(count)) / count if self.stratified else level)

    def loss(self, restored: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        """The weighted error over the inside of the patches; images (batch, channels, size, size), level (batch,)."""
        inner = slice(self.margin, clean.shape[-1] - self.margin)
        error = ERRORS[self.error]((restored - clean)[..., inner, inner]).mean((1, 2, 3))
        return (error / (level + self.least_level) ** self.weight_power).mean()
