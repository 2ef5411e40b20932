"""Files that are whole or not there, written beside their place and renamed, and folders that one process at a time writes to.

Source: rename is atomic, and the system gives back an advisory lock when its holder dies (POSIX).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

LOCK = ".lock"
_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp(\.\w+)?")


class InUse(ValueError):
    """Raised when another process writes to a folder."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` when the block ends without an error, and is removed otherwise.

    The folder is made if it is missing. The suffix stays, since many writers choose their format by it.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        ours = error.errno in FULL or error.filename in (str(temporary), str(path.parent))
        if error.errno is None or not ours:
            raise
        raise OSError(error.errno, f"cannot write {path.name}, {os.strerror(error.errno)}", str(path)) from None
    finally:
        _remove(temporary)


@contextmanager
def together(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """As `aside`, for files that belong together: none is renamed before all are written."""
    folders = [path for path in paths if path.is_dir()]
    if folders:
        raise IsADirectoryError(errno.EISDIR, "cannot write, a folder has this name", str(folders[0]))
    with ExitStack() as stack:
        yield tuple(stack.enter_context(aside(path)) for path in paths)


def _remove(temporary: Path) -> None:
    with suppress(OSError):  # where the folder itself cannot be used, which was said already
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
