"""`stablenet train | certify | evaluate | attack | export`: the only place where names become objects."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from stablenet.bundled import weights_path
from stablenet.certificate import NotCertified, certify
from stablenet.images.labeled import LabeledImages
from stablenet.images.sources import LabeledSource
from stablenet.networks import Classifier
from stablenet.robustness.attacks import AutoAttackPart
from stablenet.weights import load, read_card


@dataclass(frozen=True)
class Certify:
    """Print the certificate of a network as a tree, computed from its weights; with images, the radius of each prediction."""

    weights: tyro.conf.Positional[str]
    """A .safetensors file with its card beside it, or the name of shipped weights, as denoiser-gray."""
    images: tyro.conf.OmitArgPrefixes[LabeledSource] = LabeledSource()
    """For a classifier: labeled images."""
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


@dataclass(frozen=True)
class AttackCommand:
    """Look for the smallest change of each image that changes its class, and hold it against the certified radius."""

    weights: tyro.conf.Positional[str]
    """A classifier's .safetensors file with its card beside it, or the name of shipped weights."""
    images: tyro.conf.OmitArgPrefixes[LabeledSource] = LabeledSource()
    count: int = 200
    """How many of the images (the first) to attack."""
    output: Path = Path("attacked")
    """Where attacked.csv, one row an image, attacked_accuracy.png and smallest_changes.png go."""
    epsilons: tuple[float, ...] = (36 / 255, 72 / 255, 108 / 255, 0.5, 1.0)
    """l2 distances for images in [0, 1] at which to attack."""
    steps: int = 40
    restarts: int = 2
    """Of projected gradient descent."""
    autoattack: tuple[AutoAttackPart, ...] = ()
    """Parts of AutoAttack to run too; all four are its standard version, and take hours for 500 images on a CPU."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")


@dataclass(frozen=True)
class Export:
    """Write a classifier as ONNX or a torch program: images in, logits and certified radii out, nothing else needed."""

    weights: tyro.conf.Positional[str]
    """A classifier's .safetensors file with its card beside it, or the name of shipped weights."""
    output: tyro.conf.Positional[Path]
    """A path ending in .onnx or .pt2; a card, its name with .json at the end, goes beside it."""


def _certify(command: Certify) -> None:
    if command.images == LabeledSource():
        return print(certify(load(weights_path(command.weights))))
    from stablenet.robustness.report import write_report
    from stablenet.robustness.slack import slack

    network, images = _classifier(command)
    print(certify(network))
    print(slack(network, images))
    _print_shares(write_report(network, images, command.output, command.epsilons), "certified", len(images))
    print(f"wrote {command.output / 'radii.csv'} and {command.output / 'certified_accuracy.png'}")


def _classifier(command: Certify | AttackCommand) -> tuple[Classifier, LabeledImages]:
    network = load(weights_path(command.weights), kind="classifier")
    a, source = network.architecture, command.images
    if source.size is None and a.height == a.width:
        source = replace(source, size=a.height)
    return network, source.read(train=False, channels=a.channels)


def _print_shares(shares: dict[float, float], what: str, count: int) -> None:
    for epsilon, share in shares.items():
        print(f"{f'{what} at {epsilon:.4g}' if epsilon else 'clean'}: {100 * share:.2f} % of {count} images")


def _attack(command: AttackCommand) -> None:
    from stablenet.robustness.attacks import Attack
    from stablenet.robustness.report import write_attack

    settings = Attack(command.epsilons, command.steps, command.restarts, command.autoattack, seed=command.seed)
    network, images = _classifier(command)
    images = images.part(None, command.count)
    found = write_attack(network, images, settings, command.output)
    _print_shares(found.accuracy((0.0, *command.epsilons)), "accuracy under attack", len(images))
    print(f"no image was changed within its certified radius; wrote attacked.csv and figures to {command.output}")


def _export(command: Export) -> None:
    from stablenet.export import card_path, write

    path = write(load(weights_path(command.weights), kind="classifier"), command.output)
    print(f"wrote {path} and {card_path(path).name}: outputs are logits and certified l2 radii")


def _evaluate(command: Evaluate) -> None:
    from stablenet.images.photographs import FolderImages
    from stablenet.training.denoiser import evaluate

    network = load(weights_path(command.weights), kind="denoiser")
    images = FolderImages([command.images], channels=network.channels)
    print(certify(network).certificate)
    tables = [evaluate(network, images, command.noise_levels, seed=1000 * k) for k in range(command.seeds)]
    for level in command.noise_levels:
        mean = sum(table[level] for table in tables) / len(tables)
        print(f"noise {level:.4f} ({255 * level:.0f}/255): PSNR {mean:.3f} dB over {len(images)} images")


def _train(arguments: list[str]) -> None:
    from stablenet.robustness.slack import Slack

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
    card = read_card(path)
    for name in ("slack_at_first", "slack"):  # of a classifier
        if name in card:
            print(f"{name.replace('_', ' ')}: {Slack(**card[name])}")


@dataclass(frozen=True)
class Train:
    """Train a network: `stablenet train denoiser --help` and `stablenet train classifier --help` list the recipes."""


def _dispatch(arguments: list[str]) -> None:
    if arguments[:1] == ["train"]:  # its options are built only when asked for: the extra `train` may be absent
        return _train(arguments[1:])
    command = tyro.extras.subcommand_cli_from_dict(
        {"certify": Certify, "evaluate": Evaluate, "attack": AttackCommand, "export": Export, "train": Train},
        prog="stablenet",
        description="Networks whose stability is proved: train them, certify them, attack them, export them.",
        args=arguments,
    )
    handlers: dict[type, Callable] = {Certify: _certify, Evaluate: _evaluate, AttackCommand: _attack, Export: _export}
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
