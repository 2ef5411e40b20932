"""A file appears whole or not at all, a folder has one writer, and what killed processes left is taken away."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from stablenet.files import LOCK, InUse, aside, lock, sweep


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with aside(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(OSError, match="full"), aside(path) as temporary:
        temporary.write_text("half")
        raise OSError("full")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path):
    dead = multiprocessing.get_context("fork").Process(target=os.getpid)
    dead.start()
    dead.join()
    left = tmp_path / f".checkpoint.{dead.pid}.tmp.safetensors"
    kept = [f".log.{os.getppid()}.tmp.csv", ".notes.tmp", "a.safetensors", f"b.{dead.pid}.tmp.csv"]
    for path in (left, *(tmp_path / name for name in kept)):
        path.write_text("x")
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)


def test_a_folder_has_one_holder(tmp_path):
    with lock(tmp_path / "run"):
        with pytest.raises(InUse, match=f"run is in use by process {os.getpid()}: wait for its end"), lock(tmp_path / "run"):
            pass
        assert (tmp_path / "run" / LOCK).exists()
    assert not (tmp_path / "run" / LOCK).exists()
    with lock(tmp_path / "run"):
        pass


def _hold(folder: Path, ready) -> None:
    with lock(folder):
        ready.set()
        signal.pause()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(20)
    with pytest.raises(InUse, match=f"in use by process {holder.pid}"), lock(tmp_path):
        pass
    holder.kill()
    holder.join()
    assert (tmp_path / LOCK).read_text() == f"{holder.pid}\n"
    with lock(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"
