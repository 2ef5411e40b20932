"""`stablenet train denoiser | classifier`: its options are built only when asked for."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from stablenet.certificate import certify
from stablenet.weights import load, read_card


@dataclass(frozen=True)
class Train:
    """Train a network: `stablenet train denoiser --help` and `stablenet train classifier --help` list the recipes."""

    def run(self) -> None:
        """Never reached: `parse_training` reads the arguments first."""


def run_training(arguments: list[str]) -> None:
    """Parse, train, and print the certificate of what came out.

    Raises
    ------
    ValueError : the extra `train` is missing, or whatever training refuses.
    """
    from stablenet.robustness.slack import Slack

    try:
        from stablenet.training.session import COMMANDS, run
    except ImportError as error:
        raise ValueError(f"training needs the extra `train` ({error}): pip install 'stablenet[train]'") from None
    if not arguments or arguments[0] not in COMMANDS:
        print(f"usage: stablenet train {{{','.join(COMMANDS)}}} [--help]", file=sys.stderr)
        raise SystemExit(0 if arguments[:1] in (["--help"], ["-h"]) else 2)
    name, *rest = arguments
    path: Path = run(tyro.cli(COMMANDS[name], prog=f"stablenet train {name}", args=rest))
    print(f"wrote {path}")
    print(certify(load(path)))
    card = read_card(path)
    for name in ("slack_at_first", "slack"):  # of a classifier
        if name in card:
            print(f"{name.replace('_', ' ')}: {Slack(**card[name])}")
