"""Claim: a step of a block and its backward are faster by DFT than by its matrix from N = 256 on, by Hadamard and DCT from 512.

Run: python benchmarks/frames.py. A step is relu(D^T u + (I - D^T D) y), d = N/2, 128 vectors in float32, one thread. Beside it
stand D y, D^T u and the step with its backward, and Hadamard and DCT rows. Dense is `frames.Dense` of the same matrix. Fast and
dense alternate, so that a drifting machine cannot favor one; times are the least of processor seconds. A frame wins from the
smallest size from which it is faster at every size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from report import write
from torch import Tensor, nn

from stablenet.linear import frames

SIZES = (32, 64, 128, 256, 512, 1024, 2048)
FRAMES = {"DFT": frames.DFT, "Hadamard": frames.Hadamard, "DCT": frames.DCT}


def tasks(frame: nn.Module, batch: int) -> dict[str, Callable[[], Tensor | None]]:
    """What is timed, by name."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(batch, frame.size, generator=generator)
    u = torch.randn(batch, frame.dimension, generator=generator)
    shift, learning = frame.adjoint(u), y.clone().requires_grad_()

    def step(y: Tensor) -> Tensor:
        return (shift + frame.complement(y)).relu()

    def both() -> None:
        learning.grad = None
        step(learning).backward(y)

    return {"D y": lambda: frame(y), "D^T u": lambda: frame.adjoint(u), "step": lambda: step(y), "step and backward": both}


def least(*functions: Callable[[], object], repeats: int) -> list[float]:
    """The least processor seconds of each, called in turn, several at once where they are short."""
    found = [float("inf")] * len(functions)
    for turn in range(repeats + 2):
        for k, function in enumerate(functions):
            start = time.process_time()
            for _ in range(3):
                function()
            if turn >= 2:
                found[k] = min(found[k], (time.process_time() - start) / 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--batch", type=int, default=128)
    a = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for name, cls in FRAMES.items():
        measured: dict[str, dict[int, tuple[float, float]]] = {}
        for size in SIZES:
            fast = cls(size // 2, size)
            slow = tasks(frames.Dense(fast.dense()), a.batch)
            for task, function in tasks(fast, a.batch).items():
                quick, dense = least(function, slow[task], repeats=a.repeats)
                measured.setdefault(task, {})[size] = (1e6 * quick, 1e6 * dense)
        for task, times in measured.items():
            lost = [size for size, (quick, dense) in times.items() if quick >= dense]
            start = min((size for size in SIZES if not lost or size > max(lost)), default=0)
            row: dict[str, object] = {"frame": name, "task": task, "wins from N =": start or "-"}
            rows.append(row | {f"dense / fast at {size}": dense / quick for size, (quick, dense) in times.items()})
            rows[-1] |= {f"microseconds at {size}": times[size][0] for size in (256, 1024)}
    write("frames", rows, Path(__file__).parent / "results")


if __name__ == "__main__":
    main()
