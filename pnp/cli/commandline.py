"""`pnp COMMAND ...`: parse, run, and end with an exit code and at most one line on standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from pnp.cli.deblur import Deblur
from pnp.cli.denoise import Denoise
from pnp.cli.results import versions

Command = Annotated[Deblur, tyro.conf.subcommand("deblur")] | Annotated[Denoise, tyro.conf.subcommand("denoise")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Raises
    ------
    SystemExit : 2 bad input (one line on standard error), 3 not converged, 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments == ["--version"]:
        own, *others = (f"{name} {version}" for name, version in versions().items())
        print(f"{own.replace('stablenet', 'pnp')} ({', '.join(others)})")
        return
    command: Deblur | Denoise = tyro.cli(
        Command,
        prog="pnp",
        description="Restore images by plug-and-play with a convergence guarantee. `pnp --version` tells the versions.",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    )
    try:
        code = command.run()
    except (ValueError, TypeError, OSError, RuntimeError, ArithmeticError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped: nothing was written", file=sys.stderr)
        raise SystemExit(130) from None
    if code:
        raise SystemExit(code)
