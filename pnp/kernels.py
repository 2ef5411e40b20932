"""Blur kernels by name or from a file: nonnegative, sum 1, (1, 1, height, width).

Sources: uniform 9x9 and Gaussian 25x25 of standard deviation 1.6 are those of the protocol of [Zhang2021]; the
motion kernel is drawn by deepinv's generator [Schuler2015], see data/kernels/README.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stablenet.bundled import data_path
from stablenet.images.decoding import InputError
from stablenet.images.reading import read_image


def gaussian(side: int = 25, deviation: float = 1.6) -> Tensor:
    """exp(-|x|^2 / (2 deviation^2)) on side x side pixels, normalized; side odd."""
    x = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    profile = torch.exp(-(x**2) / (2 * deviation**2))
    return _normalized(torch.outer(profile, profile))


def uniform(side: int = 9) -> Tensor:
    """The mean over side x side pixels."""
    return _normalized(torch.ones(side, side, dtype=torch.float64))


def motion() -> Tensor:
    """The bundled motion kernel, 25 x 25."""
    return _from_numpy(data_path("kernels/motion.npy"))


NAMED: dict[str, Callable[[], Tensor]] = {"motion": motion, "gaussian": gaussian, "uniform": uniform}


def read_kernel(path: Path, entry: str | None = None) -> tuple[Tensor, tuple[str, ...]]:
    """A kernel (1, 1, height, width) float32 from .npy, .npz or an image, and what was assumed in reading it.

    An array must sum to 1 within 1e-3; an image, whose scale means nothing, is divided by its sum.

    Parameters
    ----------
    entry : the array's name in an .npz with several.

    Raises
    ------
    InputError : unreadable, not 2-D, not finite, negative, or not summing to 1.
    """
    path = Path(path)
    if path.suffix.lower() in (".npy", ".npz"):
        return _from_numpy(path, entry), ()
    photograph = read_image(path)
    values = photograph.pixels[0].double().mean(0)
    if float(values.sum()) == 0:
        raise InputError(f"the kernel {path} is black: it needs a positive pixel")
    return _normalized(values), (*photograph.notes, "kernel image divided by its sum")


def _from_numpy(path: Path, entry: str | None = None) -> Tensor:
    if not path.is_file():
        raise InputError(f"the kernel {path} does not exist")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                names = loaded.files
                if entry is None and len(names) == 1:
                    entry = names[0]
                if entry not in names:
                    raise InputError(f"{path} holds {', '.join(names) or 'nothing'}: choose one as {path}:NAME")
                loaded = loaded[entry]
    except InputError:
        raise
    except Exception as error:  # numpy raises OSError, ValueError, EOFError, BadZipFile ... for a bad file
        raise InputError(f"the kernel {path} cannot be read as a numeric numpy array: {error}") from None
    return _checked(loaded, path)


def _checked(values: np.ndarray, path: Path) -> Tensor:
    if values.dtype.kind not in "fiu":
        raise InputError(f"the kernel {path} has entries of type {values.dtype}: real numbers are needed")
    if values.ndim != 2 or values.size == 0:
        raise InputError(f"the kernel {path} has shape {values.shape}: a 2-D array (height, width) is needed")
    kernel = torch.from_numpy(values.astype(np.float64))
    if not bool(torch.isfinite(kernel).all()):
        raise InputError(f"the kernel {path} has NaN or infinite entries")
    if bool((kernel < 0).any()):
        raise InputError(f"the kernel {path} has negative entries (lowest {float(kernel.min()):.4g}): a blur has none")
    total = float(kernel.sum())
    if abs(total - 1) > 1e-3:
        raise InputError(f"the kernel {path} sums to {total:.6g}, not 1: divide it by its sum")
    return _normalized(kernel)


def _normalized(kernel: Tensor) -> Tensor:
    return (kernel / kernel.sum()).float()[None, None]
