"""What a command reads, and what it prints of it: the photograph, the kernel, the denoiser, the noise level."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from pnp import kernels
from pnp.explicit import potential_of
from pnp.noise import check_noise_scale, checked_noise_level
from stablenet.bundled import data_path
from stablenet.certificate import NotCertified, certify
from stablenet.images.decoding import InputError
from stablenet.images.reading import Photograph, read_image
from stablenet.weights import load, pretrained


def check_noise_level(noise_level: float) -> None:
    """The checks that every problem makes, before any work; the measurement of a command is an image itself, so |A| is 1.

    Raises
    ------
    InputError : not in (0, 1].
    """
    try:
        check_noise_scale(checked_noise_level(noise_level), smoothness=1.0)
    except ValueError as error:
        raise InputError(f"noise level {noise_level:g}: {error}") from None


def load_image(path: Path | None, white_level: float | None = None) -> Photograph:
    """The photograph at a path, or the bundled one; prints what was read."""
    photograph = read_image(data_path("images/camera.png") if path is None else path, white_level=white_level)
    _, channels, height, width = photograph.pixels.shape
    kind = "gray" if channels == 1 else "color, each channel restored by itself where the denoiser is gray"
    notes = "".join(f"; {note}" for note in photograph.notes)
    print(f"image        {path or 'bundled photograph'}, {height} x {width}, {kind}{notes}")
    return photograph


def load_denoiser(name: str) -> nn.Module:
    """A denoiser by name or from a file of weights; prints its certificate."""
    path = Path(name)
    named = path.suffix != ".safetensors" and not path.exists()
    denoiser = pretrained(name, kind="denoiser") if named else load(path, kind="denoiser")
    print(f"denoiser     {name}, {certified(denoiser)}")
    return denoiser


def certified(denoiser: nn.Module) -> str:
    """What is proved of a denoiser, in a line: of the map, and of its potential where it has one."""
    try:
        told = str(certify(denoiser).certificate)
    except NotCertified:
        told = "no certificate of the map"
    potential = potential_of(denoiser)
    return told if potential is None else f"{told}; potential {'convex' if potential.is_convex else 'weakly convex'}"


def load_kernel(name: str) -> Tensor:
    """A kernel (1, 1, height, width) by name or from a file (FILE.npz:NAME takes one of several); prints it."""
    kernel, notes = _find_kernel(name)
    rows, columns = kernel.shape[-2:]
    print(f"kernel       {name}, {rows} x {columns}{''.join(f'; {note}' for note in notes)}")
    return kernel


def _find_kernel(name: str) -> tuple[Tensor, tuple[str, ...]]:
    if name in kernels.NAMED:
        return kernels.NAMED[name](), ()
    if ".npz:" in name:
        path, entry = name.rsplit(":", 1)
        return kernels.read_kernel(Path(path), entry)
    if not Path(name).exists():
        raise InputError(f"the kernel {name} is neither a file nor one of {', '.join(kernels.NAMED)}")
    return kernels.read_kernel(Path(name))
