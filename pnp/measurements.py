"""What a measurement must be before a theorem can speak of it: real, finite, of the size and scale of its physics."""

from __future__ import annotations

import deepinv
import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

_IMAGE_DOMAIN = (
    deepinv.physics.Blur,
    deepinv.physics.BlurFFT,
    deepinv.physics.Denoising,
    deepinv.physics.Inpainting,
    deepinv.physics.Demosaicing,
    deepinv.physics.Downsampling,
)


def check_measurement(y: Tensor, physics: LinearPhysics) -> None:
    """Refuse what is no real, finite, nonempty tensor on the device of the physics."""
    if not isinstance(y, Tensor):
        raise TypeError(f"a measurement must be a torch.Tensor, got {type(y).__name__}")
    if y.is_complex():
        raise ValueError(
            f"a measurement must be real, got {y.dtype}: give the real and the imaginary part as two channels, "
            "torch.view_as_real(y).movedim(-1, 1)"
        )
    if y.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"a measurement must be float32 or float64, got {y.dtype}: convert it, with values from [0, 1]")
    if y.ndim < 2 or y.numel() == 0:
        raise ValueError(f"a measurement must be (batch, channels, height, width), not empty; got {tuple(y.shape)}")
    if y.device.type == "meta":
        raise ValueError("the measurement is on the meta device, where tensors have no values")
    for name, tensor in parameters(physics):
        if tensor.device != y.device:
            raise ValueError(
                f"the measurement is on {y.device}, the {name} of {type(physics).__name__} on {tensor.device}: bring them "
                f"together, physics.to({str(y.device)!r})"
            )
    bad = int((~torch.isfinite(y)).sum())
    if bad:
        raise ValueError(f"the measurement has {bad} NaN or infinite values of {y.numel()}: mask or replace them first")


def check_precision(y: Tensor, physics: LinearPhysics, names: tuple[str, ...] | None = ("mask", "filter")) -> None:
    """Refuse a physics whose mask or filter (None: any real tensor) is of another precision than the measurement.

    Single numbers adapt, and complex ones, which `physics.to(dtype)` leaves as they are.
    """
    for name, tensor in parameters(physics):
        if (names is None or name in names) and tensor.is_floating_point() and tensor.dtype != y.dtype:
            raise ValueError(
                f"the measurement is {y.dtype}, the {name} of {type(physics).__name__} {tensor.dtype}: bring them to one "
                f"precision, y.to({tensor.dtype}) or physics.to({y.dtype})"
            )


def parameters(physics: LinearPhysics) -> list[tuple[str, Tensor]]:
    """The named tensors of an operator, but for single numbers, the noise model and a generator of masks."""
    named = [*physics.named_buffers(), *physics.named_parameters()]
    return [(name, tensor) for name, tensor in named if tensor.ndim > 0 and name.split(".")[0] not in ("noise_model", "gen")]


def backproject(y: Tensor, physics: LinearPhysics) -> Tensor:
    """A^T y, with the shape of the measurement checked against the physics, which may fail in its own words."""
    name = type(physics).__name__
    try:
        x = physics.A_adjoint(y)
        again = physics.A(x)
    except Exception as error:
        check_precision(y, physics, None)
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"a measurement of shape {tuple(y.shape)} does not fit the physics {name}, which says: {first}"
        ) from error
    if not isinstance(again, Tensor) or again.shape != y.shape:
        measured = tuple(again.shape) if isinstance(again, Tensor) else type(again).__name__
        raise ValueError(
            f"a measurement of shape {tuple(y.shape)} does not fit the physics {name}, which would measure "
            f"{measured}: make the physics for the size and number of the images"
        )
    if x.ndim != 4 or x.is_complex() or len(x) != len(y):
        raise ValueError(f"images must be real (batch, channels, height, width), the physics makes {tuple(x.shape)} {x.dtype}")
    if x.dtype != y.dtype or again.dtype != y.dtype:
        raise ValueError(f"the measurement is {y.dtype}, but the physics {name} answers in {x.dtype} and {again.dtype}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"A^T y has NaN or infinite values: the physics {name} has, or the measurement is too large")
    return x


def check_range(y: Tensor, physics: LinearPhysics, image: Tensor) -> None:
    """Images are assumed in [0, 1]; a measurement far beyond what a white and a random binary one give was scaled otherwise."""
    if type(physics) not in _IMAGE_DOMAIN:
        return
    binary = torch.randint(0, 2, image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    reach = max(float(physics.A(scene).abs().max()) for scene in (torch.ones_like(image), binary))
    largest = float(y.abs().max())
    if largest > 4 * max(reach, 1e-12) + 1:
        raise ValueError(
            f"the measurement reaches {largest:.4g}, where images in [0, 1] give at most about {reach:.4g}: divide "
            "8-bit images by 255 and 16-bit images by 65535"
        )
