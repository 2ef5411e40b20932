"""What ships with the package: images, kernels, weights; found in an installed wheel or in a checkout.

Source: data/README files name where each comes from.
"""

from __future__ import annotations

from pathlib import Path


class NotBundled(ValueError):
    """Raised when a file that should ship with the package is not there."""


def data_path(name: str) -> Path:
    """The path of a bundled file, as "images/camera.png": in an installed wheel or in a checkout.

    Raises
    ------
    NotBundled : no such file is bundled.
    """
    here = Path(__file__).resolve().parent
    for root in (here / "_data", here.parent / "data"):
        if (root / name).is_file():
            return root / name
    raise NotBundled(f"{name} is not bundled with this installation: reinstall the package")


def available() -> tuple[str, ...]:
    """The names that `pretrained` takes."""
    here = Path(__file__).resolve().parent
    roots = (here / "_data" / "weights", here.parent / "data" / "weights")
    return tuple(sorted({p.stem for root in roots for p in root.glob("*.safetensors")}))


def weights_path(name: str) -> Path:
    """Where the shipped weights of that name are, or the name itself as a path when none are."""
    return data_path(f"weights/{name}.safetensors") if name in available() else Path(name)
