"""Files that are whole or not there, written beside their place and renamed, and folders that one process at a time writes to.

Source: rename is atomic, and the system gives back an advisory lock when its holder dies (POSIX).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

LOCK = ".lock"
_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp(\.\w+)?")


class InUse(ValueError):
    """Raised when another process writes to a folder."""


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` when the block ends without an error, and is removed otherwise.

    The folder is made if it is missing. The suffix stays, since many writers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what `aside` left in a folder when its process was killed."""
    for path in folder.glob(".*.tmp*"):
        found = _TEMPORARY.fullmatch(path.name)
        if found and not _lives(int(found[1])):
            path.unlink(missing_ok=True)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder, made if it is missing, until the block ends; a lock whose process has died is taken over.

    Raises
    ------
    InUse : another process (or another part of this one) holds it; the error names the process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with path.open("a+") as file:
        if not _taken(file, path):
            file.seek(0)
            holder = file.read().strip()
            raise InUse(f"{folder} is in use by process {holder or '?'}: wait for its end, or give another output folder")
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _taken(file: TextIO, path: Path) -> bool:
    """Whether the lock is ours now, and still on the file that is found at `path`; always, where there are no such locks."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except OSError:
        return False


def _lives(process: int) -> bool:
    """Whether another process of that number runs; this one has just begun and left nothing behind."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
