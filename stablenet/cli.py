"""`stablenet train | certify | evaluate`: the only place where names become objects."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro

from stablenet.certificate import NotCertified, certify
from stablenet.pretrained import load, weights_path


@dataclass(frozen=True)
class Certify:
    """Print the certificate of a network as a tree, computed from its weights; with images, the radius of each prediction."""

    weights: tyro.conf.Positional[str]
    """A .safetensors file with its card beside it, or the name of shipped weights, as denoiser-gray."""
    data: Path | None = None
    """For a classifier: labeled images, a folder of idx files (t10k-*) or of one folder a class."""
    output: Path = Path("certified")
    """Where radii.csv, one row an image, and certified_accuracy.png go."""
    epsilons: tuple[float, ...] = (0.0, 36 / 255, 72 / 255, 108 / 255, 0.5, 1.0)
    """l2 distances for images in [0, 1] at which certified accuracy is printed; 0 gives the clean accuracy."""


@dataclass(frozen=True)
class Evaluate:
    """Mean PSNR of a denoiser over a folder of images at given noise levels."""

    weights: tyro.conf.Positional[str]
    """A .safetensors file with its card beside it, or the name of shipped weights, as denoiser-gray."""
    images: tyro.conf.Positional[Path]
    """A folder of images."""
    noise_levels: tuple[float, ...] = (5 / 255, 15 / 255, 25 / 255, 50 / 255)
    """Standard deviations for images in [0, 1]."""
    seeds: int = 1
    """How many noise seeds to average over: 0, 1000, 2000, ..."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")


def _certify(command: Certify) -> None:
    if command.data is None:
        return print(certify(load(weights_path(command.weights))))
    from stablenet.labeled import read_labeled
    from stablenet.robustness.report import write_report

    network = load(weights_path(command.weights), kind="classifier")
    print(certify(network))
    a = network.architecture
    images = read_labeled(command.data, train=False, channels=a.channels, size=a.height if a.height == a.width else None)
    for epsilon, share in write_report(network, images, command.output, command.epsilons).items():
        print(f"{'clean' if epsilon == 0 else f'certified at {epsilon:.4g}'}: {100 * share:.2f} % of {len(images)} images")
    print(f"wrote {command.output / 'radii.csv'} and {command.output / 'certified_accuracy.png'}")


def _evaluate(command: Evaluate) -> None:
    from stablenet.data import FolderImages
    from stablenet.training.denoiser import evaluate

    network = load(weights_path(command.weights), kind="denoiser")
    images = FolderImages([command.images], channels=network.channels)
    print(certify(network).certificate)
    tables = [evaluate(network, images, command.noise_levels, seed=1000 * k) for k in range(command.seeds)]
    for level in command.noise_levels:
        mean = sum(table[level] for table in tables) / len(tables)
        print(f"noise {level:.4f} ({255 * level:.0f}/255): PSNR {mean:.3f} dB over {len(images)} images")


def _train(arguments: list[str]) -> None:
    try:
        from stablenet.training.session import COMMANDS, run
    except ImportError as error:
        raise ValueError(f"training needs the extra `train` ({error}): pip install 'stablenet[train]'") from None
    if not arguments or arguments[0] not in COMMANDS:
        print(f"usage: stablenet train {{{','.join(COMMANDS)}}} [--help]", file=sys.stderr)
        raise SystemExit(0 if arguments[:1] in (["--help"], ["-h"]) else 2)
    name, *rest = arguments
    path = run(tyro.cli(COMMANDS[name], prog=f"stablenet train {name}", args=rest))
    print(f"wrote {path}")
    print(certify(load(path)))


@dataclass(frozen=True)
class Train:
    """Train a network: `stablenet train denoiser --help` and `stablenet train classifier --help` list the recipes."""


def _dispatch(arguments: list[str]) -> None:
    if arguments[:1] == ["train"]:  # its options are built only when asked for: the extra `train` may be absent
        return _train(arguments[1:])
    command = tyro.extras.subcommand_cli_from_dict(
        {"certify": Certify, "evaluate": Evaluate, "train": Train},
        prog="stablenet",
        description="Networks whose stability is proved: train them, certify them.",
        args=arguments,
    )
    handlers: dict[type, Callable] = {Certify: _certify, Evaluate: _evaluate}
    handlers[type(command)](command)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: one line `error: ...` on stderr and exit code 2 for any bad input."""
    try:
        _dispatch(sys.argv[1:] if arguments is None else arguments)
    except (ValueError, NotCertified, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted: the last checkpoint is kept, the same command continues", file=sys.stderr)
        raise SystemExit(130) from None
