"""`stablenet COMMAND ...`: parse, run, and end with an exit code and at most one line on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from stablenet import __version__
from stablenet.certificate import NotCertified
from stablenet.cli.attack import AttackCommand
from stablenet.cli.certify import Certify
from stablenet.cli.convex import run_convex
from stablenet.cli.evaluate import Evaluate
from stablenet.cli.export import Export
from stablenet.cli.margins import Margins
from stablenet.cli.noise import NoiseRobustness


@dataclass(frozen=True)
class Train:
    """Train a network: `stablenet train {denoiser,ridge,classifier} --help` lists its recipe."""

    def run(self) -> None:
        """Never reached: `main` hands all that follows `train` on."""


@dataclass(frozen=True)
class Convex:
    """Train a ReLU network to its global optimum on a table: `stablenet convex fit --help` lists what can be set."""

    def run(self) -> None:
        """Never reached: `main` hands all that follows `convex` on."""


COMMANDS: dict[str, Callable[..., Any]] = {
    "certify": Certify,
    "evaluate": Evaluate,
    "attack": AttackCommand,
    "export": Export,
    "noise-robustness": NoiseRobustness,
    "margins": Margins,
    "convex": Convex,
    "train": Train,
}
DESCRIPTION = "Networks whose stability is proved: train them, certify them, attack them, export them. `--version` tells it."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Raises
    ------
    SystemExit : 2 bad input (one line `error: ...` on standard error), 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments == ["--version"]:
        import torch

        print(f"stablenet {__version__} (torch {torch.__version__}, Python {sys.version.split()[0]})")
        return
    try:
        if arguments[:1] == ["train"]:
            from stablenet.cli.train import run_training

            return run_training(arguments[1:])
        if arguments[:1] == ["convex"]:
            return run_convex(arguments[1:])
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="stablenet", description=DESCRIPTION, args=arguments).run()
    except ImportError as error:
        print(f"error: a package is missing ({error}): pip install 'stablenet[attack,convex,export,train]'", file=sys.stderr)
        raise SystemExit(2) from None
    except (ValueError, NotCertified, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as stop:
        print(f"interrupted: {str(stop) or 'no file is left half-written'}", file=sys.stderr)
        raise SystemExit(130) from None
