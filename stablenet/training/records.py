"""What a run leaves behind as it goes: log.csv and TensorBoard, one row a validation, however often it was killed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from stablenet.files import aside
from stablenet.training.loop import StepReport


def logged(
    runs: Iterator[tuple[StepReport, nn.Module]], folder: Path, *, write: bool = True
) -> Iterator[tuple[StepReport, nn.Module]]:
    """Append each validation to log.csv and TensorBoard (where installed); `write` is for one process among several.

    Rows of a killed run from the first step that is reported now on are dropped: that part is run again.
    """
    if not write:
        yield from runs
        return
    board = None
    for k, (report, average) in enumerate(runs):
        if not k:
            _drop_rows(folder / "log.csv", report.step)
            board = _board(folder / "tensorboard", report.step)
        if report.validation:
            row = {"step": report.step, "loss": report.mean_loss, "learning_rate": report.learning_rate, **report.validation}
            _append(folder / "log.csv", row)
            for name, value in row.items():
                if board is not None and name != "step":
                    board.add_scalar(name, value, report.step)
        yield report, average
    if board is not None:
        board.close()


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step)


def _append(path: Path, row: dict[str, float]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def _drop_rows(path: Path, step: int) -> None:
    """Keep the rows before `step`; half a row, which a kill may leave, goes as well."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        names, rows = reader.fieldnames or [], list(reader)
    kept = [row for row in rows if None not in row.values() and (row["step"] or "").isdigit() and int(row["step"]) < step]
    if not kept:
        path.unlink()
        return
    with aside(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(kept)
