"""Claim: on noisy 2-XOR a weakly regularized network is right on all fresh points from n = 10 d on, its kernel far from it.

At n = 10 d the tangent kernel's separator is right on less than 75 % (d = 20) and 65 % (d = 40). From equal neurons plain
training stays at chance, perturbed training solves it. The margin of the best weakly regularized network rises to the largest
from below.

Run: python benchmarks/margins.py, 8 minutes of one quiet core, or a part of it: --seeds 1 --dimensions 20 --ratios 5 10. The
network has 200 neurons, 2,000 full steps of Adam, lambda = 1e-4; the lazy one no decay and a start 50 times larger; the kernel
is separated with the largest margin. Accuracy in % on 5,000 fresh points, mean over the seeds, and from the worst to the best;
margins are normalized (the kernel's in its own space, so not to be compared). Draws are kept in --runs, where a run that was
stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path
from statistics import mean

import torch
from report import write

from stablenet.convex.toys import noisy_xor
from stablenet.files import aside
from stablenet.robustness.margins import margin_curve, max_margin, normalized_margin
from stablenet.training.perturbed import Perturbation
from stablenet.training.sample_complexity import (
    KERNEL,
    LAZY,
    NETWORK,
    Outcome,
    Training,
    collected,
    compare,
    draw_accuracies,
    fit,
    two_layers,
)

RESULTS = Path(__file__).parent / "results"
Rows = list[dict[str, object]]


def studied(a: argparse.Namespace) -> list[Outcome]:
    """Every draw, from --runs where it is there."""
    outcomes = []
    for d in a.dimensions:
        for n in [round(d * ratio) for ratio in a.ratios]:
            for seed in range(a.seeds):
                place = a.runs / f"{d}-{n}-{seed}.json"
                if not place.is_file():
                    found = list(compare(noisy_xor, d, n, seed, Training(), lazy=True))
                    with aside(place) as part:
                        part.write_text(json.dumps([asdict(outcome) for outcome in found]))
                    print(", ".join(f"{o.model} {100 * o.accuracy:.1f}" for o in found), f"(d = {d}, n = {n})", flush=True)
                outcomes += [Outcome(**row) for row in json.loads(place.read_text())]
    return outcomes


def table(outcomes: list[Outcome]) -> Rows:
    """One row a model, dimension and number of points."""
    return [
        {
            "model": model,
            "d": d,
            "n": n,
            "n / d": n / d,
            "n / d^2": n / d**2,
            "seeds": len(row),
            "accuracy": 100 * mean(o.accuracy for o in row),
            "worst": 100 * min(o.accuracy for o in row),
            "best": 100 * max(o.accuracy for o in row),
            "margin": mean(o.margin for o in row),
            "processor seconds": mean(o.seconds for o in row),
        }
        for model in (NETWORK, LAZY, KERNEL)
        for (d, n), row in collected(outcomes, model).items()
    ]


def perturbed(seeds: int, d: int = 20, n: int = 200) -> Rows:
    """Training from equal neurons, without and with perturbations."""
    rows: Rows = []
    for name, perturbation in (("plain", None), ("perturbed", Perturbation())):
        shares, margins = [], []
        for seed in range(seeds):
            X, y = noisy_xor(n, d, generator=torch.Generator().manual_seed(seed))
            fresh, labels = noisy_xor(5000, d, generator=torch.Generator().manual_seed(seed + 2**32))
            training, generator = Training(perturbation=perturbation), torch.Generator().manual_seed(seed)
            network = two_layers(d, training, generator=generator)
            with torch.no_grad():
                network[0].weight.copy_(network[0].weight[:1].expand_as(network[0].weight))
                network[2].weight.copy_(network[2].weight[:, :1].expand_as(network[2].weight))
            for _ in fit(network, X, y, training, generator=generator):
                pass
            with torch.no_grad():
                shares.append(100 * float((network(fresh)[:, 0] * labels > 0).double().mean()))
            margins.append(normalized_margin(network, X, y))
        spread = {"accuracy": mean(shares), "worst": min(shares), "best": max(shares), "margin": mean(margins)}
        rows.append({"training": name, "d": d, "n": n, "seeds": seeds, **spread})
    return rows


def curve(n: int = 10, d: int = 3) -> Rows:
    """n Gaussian points with random labels: margins of global minima as shares of the largest margin, and the bound of M6."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = (2 * torch.randint(2, (n,), generator=generator) - 1).double()
    largest = max_margin(X, y)
    found = margin_curve(X, y, [10.0**-k for k in range(3, 13)])
    return [
        {
            "lambda": point.weight,
            "margin / largest": point.margin / largest.margin,
            "at least": 1 - math.log(2 * n) / point.size / largest.margin,
            "squared norm": point.size,
            "gap": point.gap,
            "largest margin": largest.margin,
        }
        for point in found
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[20, 40])
    parser.add_argument("--ratios", type=float, nargs="+", default=[1, 2, 5, 10, 20, 40])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", type=Path, default=Path("runs/margins"))
    a = parser.parse_args()
    torch.set_num_threads(1)
    write("margins-curve", curve(), RESULTS)
    write("margins-perturbed", perturbed(a.seeds), RESULTS)
    outcomes = studied(a)
    write("margins", table(outcomes), RESULTS)
    draw_accuracies(outcomes, RESULTS / "margins.png")


if __name__ == "__main__":
    main()
