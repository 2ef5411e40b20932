"""Benchmarks write what they measured as JSON and as a Markdown table, side by side with the peers of the same run."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from stablenet.files import aside


def seconds(function: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time in seconds of a call, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return median(times)


def processor() -> str:
    """The processor's name, as "AMD EPYC", or the kind of machine where the system does not tell."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(name: str, rows: list[dict[str, object]], folder: Path, *, show: bool = True) -> None:
    """Write folder/name.json and folder/name.md, whole or not at all, and print the rows as a table."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_text(row[c]) for c in columns) + " |" for row in rows]
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    for ending, text in (("json", json.dumps({"machine": machine, "rows": rows}, indent=2)), ("md", "\n".join(lines))):
        with aside(folder / f"{name}.{ending}") as part:
            part.write_text(text + "\n")
    if show:
        print("\n".join(lines))


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
