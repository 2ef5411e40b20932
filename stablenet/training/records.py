"""What a run leaves behind as it goes: log.csv and TensorBoard, one row a validation."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from stablenet.training.loop import Record


def logged(runs: Iterator[tuple[Record, nn.Module]], folder: Path, *, write: bool = True) -> Iterator[tuple[Record, nn.Module]]:
    """Append each validation to log.csv and TensorBoard (where installed); `write` is for one process among several."""
    if not write:
        yield from runs
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(str(folder / "tensorboard"))
    except ImportError:
        board = None
    total, count = 0.0, 0
    for record, average in runs:
        total, count = total + record.loss, count + 1
        if record.validation:
            row = {
                "step": record.step,
                "loss": total / count,
                "learning_rate": record.learning_rate,
            } | record.validation
            path = folder / "log.csv"
            fresh = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(row))
                if fresh:
                    writer.writeheader()
                writer.writerow(row)
            for name, value in row.items():
                if board is not None and name != "step":
                    board.add_scalar(name, value, record.step)
            total, count = 0.0, 0
        yield record, average
    if board is not None:
        board.close()
