"""Claim: a gated group lasso, 400 data in 30 dimensions and 200 gates, is certified to 1e-8 in under a second of one core.

Clarabel through cvxpy takes five times as long and more, and no other solver here comes closer sooner.

Run: python benchmarks/convex_solvers.py, some minutes of one core, or a part: --solvers Newton Columns. The objective is
|A v - y|^2/(2n) + 1e-3 sum |v_i| on Gaussian data. Seconds are of the processor, one thread, the median of --repeats; a gap
is proved, from the solver's own residuals or, for peers, from that of their variables. skglm and celer take part where they are
installed, with the n x (gates d) matrix made before the clock starts, at the tolerances named. A solver without a line was not
installed.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch
from report import write

from stablenet.convex import Columns, Conic, Fista, GroupNorm, Newton, Optimum, Program, Reweighting, Squared, gates, run

WEIGHT = 1e-3
OURS = {
    "Newton": Newton(1e-8),
    "Columns": Columns(1e-8),
    "Fista": Fista(1e-6),
    "Reweighting": Reweighting(1e-4, 100),
    "Clarabel": Conic(1e-8),
}
PEERS = ("skglm", "celer")


def instance(n: int, d: int, number: int) -> Program:
    """Gaussian data, targets and gates."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(n, d, generator=g, dtype=torch.float64)
    y = torch.randn(n, 1, generator=g, dtype=torch.float64)
    return Program(X, y, gates.sample(X, number, generator=torch.Generator().manual_seed(0)), Squared(1 / n), GroupNorm(WEIGHT))


def peer(name: str, program: Program) -> Callable[[], Optimum]:
    """Its group lasso with intercept off, with a lower bound from its residual."""
    A = torch.cat([mask[:, None] * program.X for mask in program.gates.patterns], 1).numpy()
    y = program.y[:, 0].numpy()
    settings = {"groups": program.X.shape[1], "alpha": WEIGHT, "fit_intercept": False, "tol": 1e-8, "max_iter": 200}
    if name == "skglm":
        from skglm import GroupLasso
    else:
        from celer import GroupLasso

    def solve() -> Optimum:
        V = torch.tensor(GroupLasso(**settings).fit(A, y).coef_).reshape(program.shape)
        bound = program.lower_bound(program.datafit.gradient(program.predict(V), program.y))
        return Optimum.of(program, V, program.objective(V), bound)

    return solve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--solvers", nargs="+", default=[*OURS, *PEERS], choices=[*OURS, *PEERS])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=3, default=(400, 30, 200), metavar=("N", "D", "GATES"))
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "results")
    a = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    program = instance(*a.size)
    run(instance(40, 5, 10), Newton())  # what is loaded at the first call is not counted
    rows: list[dict[str, object]] = []
    for name in a.solvers:
        if name in PEERS and find_spec(name) is None:
            print(f"{name} is not installed", flush=True)
            continue
        solve = peer(name, program) if name in PEERS else lambda name=name: run(program, OURS[name])
        times = []
        for _ in range(a.repeats):
            start = time.process_time()
            optimum = solve()
            times.append(time.process_time() - start)
        tolerance = 1e-8 if name in PEERS else OURS[name].tolerance
        rows.append({"solver": name, "tolerance": tolerance, "seconds": median(times), "objective": optimum.objective})
        rows[-1]["relative gap"] = optimum.relative_gap
        print(rows[-1], flush=True)
    write("convex_solvers", rows, a.folder)


if __name__ == "__main__":
    main()
