"""Blurred scenes, simulated from a sharp image or observed by a camera.

Source of the protocol: circular convolution, noise of a fixed seed, no clipping, start from the blurred image
[Zhang2021]. A photograph taken by a camera is not periodic: with the boundary "valid" the unknown image is larger
than the measurement by the kernel's support, and nothing is assumed about what lies outside.
"""

from __future__ import annotations

from typing import Literal

import deepinv
import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from pnp.scenes.scene import Scene
from stablenet.images.decoding import InputError

Boundary = Literal["circular", "valid"]


def simulate(reference: Tensor, kernel: Tensor, *, noise_level: float, boundary: Boundary, seed: int) -> Scene:
    """Blur a sharp image (1, channels, height, width) and add Gaussian noise, unclipped.

    Raises
    ------
    InputError : the kernel is larger than the image.
    """
    height, width = reference.shape[-2:]
    _check_fits(kernel, height, width)
    physics = _blur(kernel, boundary, tuple(reference.shape[1:]))
    blurred = physics.A(reference)
    noise = torch.randn(blurred.shape, generator=torch.Generator().manual_seed(seed))
    return _scene(blurred + noise_level * noise, physics, kernel, boundary, reference)


def observe(measurement: Tensor, kernel: Tensor, *, boundary: Boundary) -> Scene:
    """Take an image (1, channels, height, width) that is blurred already as the measurement.

    Raises
    ------
    InputError : the kernel is larger than the image.
    """
    _check_fits(kernel, *measurement.shape[-2:])
    return _scene(measurement, _blur(kernel, boundary, tuple(measurement.shape[1:])), kernel, boundary, None)


def _blur(kernel: Tensor, boundary: Boundary, shape: tuple[int, ...]) -> LinearPhysics:
    if boundary == "circular":
        return deepinv.physics.BlurFFT(img_size=shape, filter=kernel)
    return deepinv.physics.Blur(filter=kernel, padding="valid", use_fft=True)


def _scene(y: Tensor, physics: LinearPhysics, kernel: Tensor, boundary: Boundary, reference: Tensor | None) -> Scene:
    height, width = y.shape[-2:]
    if boundary == "circular":
        return Scene(y, physics, y, reference, (slice(0, height), slice(0, width)))
    rows, columns = kernel.shape[-2:]
    top, left = (rows - 1) // 2, (columns - 1) // 2
    padding = (left, columns - 1 - left, top, rows - 1 - top)
    start = torch.nn.functional.pad(y, padding, mode="replicate")
    return Scene(y, physics, start, reference, (slice(top, top + height), slice(left, left + width)))


def _check_fits(kernel: Tensor, height: int, width: int) -> None:
    rows, columns = kernel.shape[-2:]
    if rows > height or columns > width:
        raise InputError(f"the kernel ({rows} x {columns}) is larger than the image ({height} x {width})")
