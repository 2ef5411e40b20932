"""Cards of frames, rotations, proximal maps, NOK blocks, and of torch's layers between them in a Sequential.

Source: docs/theorems.md, C7: what a card says is built again, and the numbers come from the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stablenet import proximal
from stablenet.blocks import NOK, Reconstructed
from stablenet.cards import kind, part
from stablenet.entries import CardRefused
from stablenet.linear import frames, rotation

FRAME, ROTATION, BLOCK, LAYER = "frame", "rotation", "block", "layer"

part("nonnegative")(proximal.Nonnegative)
part("shifted nonnegative")(proximal.ShiftedNonnegative)
part("soft threshold")(proximal.SoftThreshold)
part("leaky nonnegative")(proximal.LeakyNonnegative)
part("group soft threshold")(proximal.GroupSoftThreshold)
part("hard threshold")(proximal.HardThreshold)
part("group maximum")(proximal.GroupMaximum)
part("scaled")(proximal.Scaled)


@dataclass(frozen=True)
class Sizes:
    """Of a frame that its sizes say all of."""

    dimension: int
    size: int


@dataclass(frozen=True)
class Rows:
    """Of a frame of some rows of a transform."""

    dimension: int
    size: int
    frequencies: tuple[int, ...]


@dataclass(frozen=True)
class Matrix:
    """Of a frame that is given as a matrix, row by row."""

    rows: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Channels:
    """Of the cosines of images."""

    channels: int
    kernel_size: int


@dataclass(frozen=True)
class Inside:
    """Of a module around another one."""

    inner: nn.Module


def _by_sizes(frame: frames.Hadamard | frames.Haar) -> Sizes:
    """What a seed of the caller's chose cannot be told by sizes."""
    sizes = Sizes(frame.dimension, frame.size)
    if not torch.equal(type(frame)(sizes.dimension, sizes.size).dense(), frame.dense()):
        raise CardRefused(
            f"a {type(frame).__name__} frame with a generator of its own has no card: take the one without, or "
            "frames.Dense(frame.dense())"
        )
    return sizes


def _rows(frame: frames.DFT | frames.DCT) -> Rows:
    return Rows(frame.dimension, frame.size, tuple(map(int, frame.frequencies)))


kind("dft", Rows, role=FRAME, describe=_rows, build=lambda a: frames.DFT(a.dimension, a.size, a.frequencies))(frames.DFT)
kind("dct", Rows, role=FRAME, describe=_rows, build=lambda a: frames.DCT(a.dimension, a.size, a.frequencies))(frames.DCT)
kind("hadamard", Sizes, role=FRAME, describe=_by_sizes, build=lambda a: frames.Hadamard(a.dimension, a.size))(frames.Hadamard)
kind("haar", Sizes, role=FRAME, describe=_by_sizes, build=lambda a: frames.Haar(a.dimension, a.size))(frames.Haar)
kind(
    "dense frame",
    Matrix,
    role=FRAME,
    describe=lambda frame: Matrix(tuple(map(tuple, frame.dense().tolist()))),
    build=lambda a: frames.Dense(torch.tensor(a.rows, dtype=torch.float64)),
)(frames.Dense)
kind("pointwise", Inside, role=FRAME, describe=lambda f: Inside(f.frame), build=lambda a: frames.Pointwise(a.inner))(
    frames.Pointwise
)
kind(
    "cosines",
    Channels,
    role=FRAME,
    describe=lambda frame: Channels(frame.dimension, frame.kernel_size),
    build=lambda a: frames.Cosines(a.channels, a.kernel_size),
)(frames.Cosines)


@dataclass(frozen=True)
class Turn:
    """Of a rotation: how many features, where they lie, of how many reflections (0 where it is no product of them)."""

    dimension: int
    axis: int
    reflections: int = 0


kind(
    "fixed rotation",
    Turn,
    role=ROTATION,
    describe=lambda r: Turn(r.dimension, r.axis),
    build=lambda a: rotation.Fixed(torch.eye(a.dimension), axis=a.axis),  # the matrix is among the weights
)(rotation.Fixed)
kind(
    "householder",
    Turn,
    role=ROTATION,
    describe=lambda r: Turn(r.dimension, r.axis, r.reflections),
    build=lambda a: rotation.Householder(a.dimension, a.reflections, axis=a.axis),
)(rotation.Householder)
kind(
    "cayley",
    Turn,
    role=ROTATION,
    describe=lambda r: Turn(r.dimension, r.axis),
    build=lambda a: rotation.Cayley(a.dimension, axis=a.axis),
)(rotation.Cayley)


@dataclass(frozen=True)
class BlockArchitecture:
    """Of a NOK block, its arguments."""

    frame: nn.Module
    prox: proximal.Proximal
    steps: int
    rotation: nn.Module | None
    scale: float
    tied: bool


def _block(block: NOK) -> BlockArchitecture:
    prox: Any = block.prox
    scale = 1.0
    if type(prox) is proximal.Scaled:
        prox, scale = prox.inner, prox.factor
    turn = block.rotations[0] if len(block.rotations) else None
    return BlockArchitecture(block.frame, prox, block.steps, turn, scale, block.tied)  # type: ignore[arg-type]


kind(
    "nok",
    BlockArchitecture,
    role=BLOCK,
    describe=_block,
    build=lambda a: NOK(a.frame, a.prox, steps=a.steps, rotation=a.rotation, scale=a.scale, tied=a.tied),
)(NOK)
kind("reconstructed", Inside, role=BLOCK, describe=lambda m: Inside(m.block), build=lambda a: Reconstructed(a.inner))(
    Reconstructed
)


@dataclass(frozen=True)
class Layers:
    """Of a Sequential."""

    layers: tuple[nn.Module, ...]


@dataclass(frozen=True)
class Empty:
    """Of what has no settings."""


@dataclass(frozen=True)
class LinearShape:
    """Of torch's Linear."""

    inputs: int
    outputs: int
    bias: bool


SIZES = ("kernel_size", "stride", "padding", "dilation")


@dataclass(frozen=True)
class ConvolutionShape:
    """Of torch's Conv2d."""

    inputs: int
    outputs: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    bias: bool
    padding_mode: str


def _convolution(m: nn.Conv2d) -> ConvolutionShape:
    if isinstance(m.padding, str):
        raise CardRefused(f"a Conv2d with padding={m.padding!r} has no card: give the padding as numbers")
    sizes: dict[str, Any] = {name: getattr(m, name) for name in SIZES}
    return ConvolutionShape(
        m.in_channels, m.out_channels, groups=m.groups, bias=m.bias is not None, padding_mode=m.padding_mode, **sizes
    )


def _built(a: ConvolutionShape) -> nn.Conv2d:
    sizes: dict[str, Any] = {name: getattr(a, name) for name in SIZES}
    mode: Any = a.padding_mode  # of whatever is no such mode torch says so
    return nn.Conv2d(a.inputs, a.outputs, groups=a.groups, bias=a.bias, padding_mode=mode, **sizes)


def _flattened(m: nn.Flatten) -> Empty:
    if (m.start_dim, m.end_dim) != (1, -1):
        raise CardRefused(f"a Flatten of axes {m.start_dim} to {m.end_dim} has no card: only nn.Flatten() has one")
    return Empty()


kind(
    "linear",
    LinearShape,
    role=LAYER,
    describe=lambda m: LinearShape(m.in_features, m.out_features, m.bias is not None),
    build=lambda a: nn.Linear(a.inputs, a.outputs, a.bias),
)(nn.Linear)
kind("convolution", ConvolutionShape, role=LAYER, describe=_convolution, build=_built)(nn.Conv2d)
kind("flatten", Empty, role=LAYER, describe=_flattened, build=lambda a: nn.Flatten())(nn.Flatten)
kind("identity", Empty, role=LAYER, describe=lambda m: Empty(), build=lambda a: nn.Identity())(nn.Identity)
kind("relu", Empty, role=LAYER, describe=lambda m: Empty(), build=lambda a: nn.ReLU())(nn.ReLU)
kind("sequential", Layers, describe=lambda m: Layers(tuple(m)), build=lambda a: nn.Sequential(*a.layers))(nn.Sequential)
