"""The command line of stablenet, one file a command; the only place of stablenet where names become objects."""

from stablenet.cli.commandline import main

__all__ = ["main"]
