"""Claim: beside one busy process, restoring and training take at most 2.5 times as long as alone.

Run: python benchmarks/busy.py. Restoring is five iterations of deblurring 256 x 256 with denoiser-gray-small, a training step
is forward, backward, Adam and enforce(model) on 16 gray patches of 48 x 48. Each figure is the smallest of many repetitions in
processes of its own, which alternate, alone and beside `while True: pass`; torch uses two threads. Threads spin for
GOMP_SPINCOUNT=1000 rounds before they sleep, as the package sets it where it is imported before torch; libgomp's own number is
300000, with which a training step is up to a quarter faster alone. The load is the machine's, of a minute: on a calm one it
stays near 3.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from report import write

TASKS = ("restoring", "training step")
SETTINGS = {
    "two threads": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "1000"},
    "two threads, libgomp's waiting": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "300000"},
    "two threads, no spinning": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def restoring() -> Callable[[], object]:
    """Five iterations of deblurring, in the API, without the files that a command writes."""
    import deepinv
    import torch

    import pnp
    import stablenet

    kernel = torch.ones(1, 1, 9, 9) / 81
    physics = deepinv.physics.BlurFFT((1, 256, 256), filter=kernel)
    y = physics(torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(0)))
    denoiser = stablenet.pretrained("denoiser-gray-small")
    problem, prior = pnp.pose(y, physics, noise_level=0.03), pnp.prior(denoiser)
    return lambda: pnp.solve(pnp.PGD(), problem, prior, stop=pnp.Stop(1e-12, 5))


def training_step() -> Callable[[], object]:
    """One step of the default denoiser in float32."""
    import torch

    import stablenet
    from stablenet.networks import Denoiser, DenoiserArchitecture

    torch.manual_seed(0)
    model = Denoiser(DenoiserArchitecture()).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x, sigma = torch.rand(16, 1, 48, 48), torch.rand(16) * 0.19

    def step() -> None:
        loss = model(x, sigma).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        stablenet.enforce(model)

    return step


def measured(task: str, seconds: float) -> float:
    """The shortest time of a call among those that fit in so many seconds, at least two."""
    call = {"restoring": restoring, "training step": training_step}[task]()
    call()
    end, times = time.perf_counter() + seconds, []
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def in_a_process(task: str, setting: dict[str, str], seconds: float, *, busy: bool) -> float:
    """`measured` in a new process, with another that is busy beside it."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        command = [sys.executable, __file__, "--measure", task, "--seconds", str(seconds)]
        return float(subprocess.run(command, env=plain | setting, capture_output=True, text=True, check=True).stdout)
    finally:
        if other is not None:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each process, not counting its start")
    parser.add_argument("--measure", choices=TASKS, help="in this process, and print the seconds")
    a = parser.parse_args()
    if a.measure:
        print(measured(a.measure, a.seconds))
        return
    best: dict[tuple[str, str, bool], float] = {}
    load = 0.0
    for _ in range(a.rounds):
        for task in TASKS:
            for name, setting in SETTINGS.items():
                for busy in (False, True):
                    load = max(load, os.getloadavg()[0])
                    found = in_a_process(task, setting, a.seconds, busy=busy)
                    best[task, name, busy] = min(best.get((task, name, busy), float("inf")), found)
    rows = []
    for task in TASKS:
        for name in SETTINGS:
            alone, beside = best[task, name, False], best[task, name, True]
            rows.append(
                {
                    "task": task,
                    "torch": name,
                    "seconds alone": alone,
                    "seconds beside": beside,
                    "beside / alone": beside / alone,
                    "alone / libgomp's waiting": alone / best[task, "two threads, libgomp's waiting", False],
                    "largest load": load,
                }
            )
    write("busy", rows, Path(__file__).parent / "results")


if __name__ == "__main__":
    main()
