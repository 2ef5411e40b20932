"""The folder of results: pictures, run.json and residuals.csv, staged beside their place and moved in at the end."""

from __future__ import annotations

import csv
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import deepinv
import torch
from torch import Tensor

import stablenet
from stablenet.images.decoding import InputError
from stablenet.images.quality import psnr
from stablenet.images.reading import Photograph
from stablenet.images.writing import write_float, write_image

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Gain:
    """PSNR in dB, unclipped, before and after."""

    before: float
    after: float

    def __str__(self) -> str:
        return f"{self.before:.2f} dB before, {self.after:.2f} dB after"


def gain(before: Tensor, after: Tensor, reference: Tensor | None) -> Gain | None:
    """The gain in decibels where the truth is known; printed."""
    if reference is None:
        return None
    found = Gain(psnr(before, reference), psnr(after, reference))
    print(f"PSNR         {found}")
    return found


def panels(
    reference: Tensor | None, before: tuple[str, Tensor], after: tuple[str, Tensor], gained: Gain | None
) -> list[tuple[str, Tensor]]:
    """The panels of the figure under their titles."""
    if reference is None or gained is None:
        return [before, after]
    return [
        ("original", reference),
        (f"{before[0]}, {gained.before:.2f} dB", before[1]),
        (f"{after[0]}, {gained.after:.2f} dB", after[1]),
    ]


def check_output(folder: Path) -> None:
    """Refuse, before any work, a folder that cannot be made or written.

    Raises
    ------
    InputError : it is a file, or lies where nothing can be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"the output {folder} is a file: name a folder")
    parent = folder.absolute()
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"the output {folder} cannot be written: {parent} is not a writable folder")


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files move into `folder` if the block succeeds; otherwise nothing is left. Prints what moved."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield stage
        folder.mkdir(exist_ok=True)
        written = sorted(stage.iterdir())
        for file in written:
            os.replace(file, folder / file.name)
        *names, last = [file.name for file in written]
        print(f"wrote        {', '.join(names)} and {last} into {folder}")
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_picture(folder: Path, name: str, pixels: Tensor, photograph: Photograph, *, floats: bool) -> None:
    """name.png with 16 bits if the photograph had more than 8, and name.tiff of floats if asked for."""
    write_image(folder / f"{name}.png", pixels, bits=8 if photograph.bits == 8 else 16)
    if floats:
        write_float(folder / f"{name}.tiff", pixels)


def write_residuals(path: Path, residuals: Tensor) -> None:
    """(iterations, batch) residuals as root mean squares over the pixels, a row an iteration, a column an image."""
    names = ["residual"] if residuals.shape[1] == 1 else [f"residual_{k}" for k in range(residuals.shape[1])]
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["iteration", *names])
        table.writerows([k, *row] for k, row in enumerate(residuals.tolist(), 1))


def write_run(path: Path, facts: Mapping[str, object]) -> None:
    """What was run, on what, and what came of it."""
    path.write_text(json.dumps({**facts, "machine": _machine()}, indent=2, default=str) + "\n")


def described(photograph: Photograph, path: Path | None) -> dict[str, object]:
    """A photograph as run.json tells it."""
    _, channels, height, width = photograph.pixels.shape
    return {
        "path": "bundled photograph" if path is None else str(path),
        "height": height,
        "width": width,
        "channels": channels,
        "bits": photograph.bits,
        "notes": list(photograph.notes),
    }


def settings(command: DataclassInstance) -> dict[str, object]:
    """All options of a command, the shared ones among its own."""
    own = asdict(command)
    shared = [name for name, value in own.items() if isinstance(value, dict)]
    return {**{k: v for k, v in own.items() if k not in shared}, **{k: v for name in shared for k, v in own[name].items()}}


def decibels(gained: Gain | None) -> dict[str, float] | None:
    """A gain as run.json tells it."""
    return None if gained is None else asdict(gained)


def versions() -> dict[str, str]:
    """Of this package and of those that compute."""
    own = {"stablenet": stablenet.__version__, "torch": torch.__version__, "deepinv": deepinv.__version__}
    return own | {"python": platform.python_version()}


def _machine() -> dict[str, object]:
    return {"versions": versions(), "processor": processor(), "threads": torch.get_num_threads()}


def processor() -> str:
    """The processor's name as the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
