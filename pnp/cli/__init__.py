"""The command line of pnp, one file a command; the only place of pnp where names become objects."""

from pnp.cli.commandline import main

__all__ = ["main"]
