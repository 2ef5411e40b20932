"""The shapes of denoisers and classifiers: frozen, checked when made, all that a card has to say of a network's form.

Source: docs/denoiser-design.md and docs/classifier-design.md for the defaults.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stablenet.butcher import ButcherTableau
from stablenet.enforcement import Policy, Rescale
from stablenet.tableaus import EULER

DOWNSAMPLINGS = ("unshuffle", "average")


@dataclass(frozen=True)
class DenoiserArchitecture:
    """The shape of a `Denoiser`.

    Parameters
    ----------
    channels : of the image, 1 (gray) or 3 (color).
    features : outputs of each block's A, per pixel.
    kernel_size : of A on the image; 3, 7, 11, ... with scale 2 run as polyphase convolutions.
    blocks : how many.
    segments : of the learned spline activations.
    scale : of the pixel-unshuffle lift (1 or 2); extra_channels : zero channels that the lift adds.
    averagedness : the alpha that the network keeps, in (0, 1); 0.5 makes it firmly nonexpansive.
    anchored : blocks pulled back to the input (any depth keeps alpha); otherwise a plain composition, relaxed.
    max_noise_level : the largest standard deviation it is conditioned on, for images in [0, 1].
    """

    channels: int = 1
    features: int = 48
    kernel_size: int = 7
    blocks: int = 8
    segments: int = 6
    scale: int = 2
    extra_channels: int = 0
    averagedness: float = 0.9
    anchored: bool = True
    max_noise_level: float = 50 / 255
    tableau: ButcherTableau = EULER
    policy: Policy = Rescale()

    def __post_init__(self) -> None:
        for name in ("channels", "features", "kernel_size", "blocks", "segments", "scale"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a positive integer, got {getattr(self, name)!r}")
        if not 0 < self.averagedness < 1:
            raise ValueError(f"averagedness must lie in (0, 1), got {self.averagedness}: 0.5 is firmly nonexpansive")
        if not 0 < self.max_noise_level <= 1:
            raise ValueError(f"max_noise_level must lie in (0, 1] for images in [0, 1], got {self.max_noise_level}")


@dataclass(frozen=True)
class RidgeArchitecture:
    """The shape of a `Ridge`.

    Parameters
    ----------
    channels : of the image, 1 (gray) or 3 (color).
    filters : how many kernels; with their flips they give 4 filters features a pixel.
    kernel_size : of the kernels, odd.
    segments : of the profile of a filter, up to 2^(segments - 2) of its scale.
    weak_convexity : a bound of the potential's weak convexity in [0, 1), kept by construction; 0 makes it convex.
    max_noise_level : the largest standard deviation it is conditioned on, for images in [0, 1].
    """

    channels: int = 1
    filters: int = 16
    kernel_size: int = 11
    segments: int = 6
    weak_convexity: float = 0.9
    max_noise_level: float = 50 / 255

    def __post_init__(self) -> None:
        for name in ("channels", "filters", "kernel_size", "segments"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a positive integer, got {getattr(self, name)!r}")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")
        if not 0 <= self.weak_convexity < 1:
            raise ValueError(f"weak_convexity must lie in [0, 1), got {self.weak_convexity}: at 1 there is no proximal map")
        if not 0 < self.max_noise_level <= 1:
            raise ValueError(f"max_noise_level must lie in (0, 1] for images in [0, 1], got {self.max_noise_level}")


@dataclass(frozen=True)
class GuidedShape:
    """The shape of the network that weighs the features of a potential, and of the images.

    Parameters
    ----------
    channels, max_noise_level : those of the potential.
    width : channels of the network; dilations : of its convolutions of 3 x 3 cells, one layer each.
    steepest : the largest weight.
    """

    channels: int = 1
    width: int = 128
    dilations: tuple[int, ...] = (1, 2, 4, 2, 1)
    steepest: float = 64.0
    max_noise_level: float = 50 / 255


@dataclass(frozen=True)
class ClassifierShape:
    """The shape of a `Classifier`, images and classes aside.

    Parameters
    ----------
    scale : of the pixel-unshuffle lift at the entrance (1: none).
    stages : (channels, blocks) at each resolution, which halves from stage to stage; channels never shrink.
    kernel_size : of the convolutions in the blocks, odd.
    downsampling : between stages; "unshuffle" keeps everything (four times the channels), "average" keeps the means.
    dense_features : hidden features of each dense block; dense_blocks : how many of them stand before the head.
    maxmin : MaxMin after each block.
    """

    scale: int = 2
    stages: tuple[tuple[int, int], ...] = ((16, 3), (64, 4))
    kernel_size: int = 3
    downsampling: str = "unshuffle"
    dense_features: int = 256
    dense_blocks: int = 2
    maxmin: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple((int(c), int(n)) for c, n in self.stages))


@dataclass(frozen=True)
class ClassifierArchitecture(ClassifierShape):
    """The shape of a `Classifier` for images of (channels, height, width) and `classes` classes.

    tableau, policy : of all blocks.
    """

    channels: int = 1
    height: int = 28
    width: int = 28
    classes: int = 10
    tableau: ButcherTableau = EULER
    policy: Policy = Rescale()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("channels", "height", "width", "scale", "kernel_size", "dense_features"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a positive integer, got {getattr(self, name)!r}")
        if not isinstance(self.classes, int) or self.classes < 2:
            raise ValueError(f"classes must be an integer of at least 2, got {self.classes!r}")
        if self.dense_blocks < 0:
            raise ValueError(f"dense_blocks must be >= 0, got {self.dense_blocks}")
        if self.downsampling not in DOWNSAMPLINGS:
            raise ValueError(f"downsampling must be one of {', '.join(DOWNSAMPLINGS)}, got {self.downsampling!r}")
        for _ in self.shapes():
            pass

    def shapes(self) -> Iterator[tuple[int, int, int]]:
        """(channels, height, width) in each stage.

        Raises
        ------
        ValueError : no stage, a stage whose channels are fewer than what reaches it, or an image that cannot be halved.
        """
        if not self.stages:
            raise ValueError("stages must hold at least one (channels, blocks)")
        arriving = self.channels * self.scale**2
        height, width = -(-self.height // self.scale), -(-self.width // self.scale)
        for k, (features, blocks) in enumerate(self.stages):
            if k:
                if height % 2 or width % 2:
                    raise ValueError(
                        f"stage {k} would halve {height} x {width}: choose scale and the number of stages so that every stage "
                        "but the last has even sides"
                    )
                height, width = height // 2, width // 2
                arriving *= 4 if self.downsampling == "unshuffle" else 1
            if features < arriving or blocks < 0 or (self.maxmin and features % 2):
                raise ValueError(
                    f"stage {k} has {features} channels and {blocks} blocks: {arriving} channels reach it and none may be "
                    "dropped; blocks must be >= 0, and channels even for MaxMin"
                )
            arriving = features
            yield features, height, width
