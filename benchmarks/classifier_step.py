"""Claim: enforcement costs under 3 % of a classifier's training step, evaluation under 1 %, other 1-Lipschitz steps are dearer.

Run: python benchmarks/classifier_step.py. Batches of 128 images of 32 x 32 x 3, networks of 1.6 million parameters, bf16; a
training step is forward, backward, optimizer and enforcement. Steps of the networks alternate, so that a drifting machine
cannot favor one; times are medians of processor seconds. Evaluation is in float32, beside `stablenet.export.plain`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from classification import RECIPES
from peers import PEERS, build
from report import write

from stablenet.enforcement import enforce
from stablenet.export import plain
from stablenet.training.loop import groups_of
from stablenet.training.optimizers import build as optimizer_of

RECIPE = RECIPES["cifar10"]


class Timed:
    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.model, self.steps, self.enforcing = build(name, RECIPE.sized((3, 32, 32), 10)).train(), [], []
        kind = "orthogonalized" if name.startswith("ours") else "adam"
        self.optimizer = optimizer_of(kind, groups_of(self.model, 4.0), 1e-3, half=True, evenness=RECIPE.schedule.evenness)
        self.x, self.y = torch.rand(128, 3, 32, 32), torch.arange(128) % 10

    def step(self) -> None:
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model(self.x)
        loss = torch.nn.functional.cross_entropy(logits.float(), self.y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        before = time.process_time()
        enforce(self.model)
        end = time.process_time()
        self.steps.append(end - start)
        self.enforcing.append(end - before)

    @torch.inference_mode()
    def forward_seconds(self, module: torch.nn.Module) -> float:
        start = time.process_time()
        module(self.x)
        return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    networks = {name: Timed(name) for name in ("ours, Euler", "ours, Heun", *PEERS, "ResNet")}
    for _ in range(a.steps + 3):
        for network in networks.values():
            network.step()
    ours = networks["ours, Euler"]
    reference = median(ours.steps[3:])
    rows = []
    for name, network in networks.items():
        rows.append(
            {
                "network": name,
                "parameters": sum(p.numel() for p in network.model.parameters()),
                "ms a training step": 1e3 * median(network.steps[3:]),
                "time / ours, Euler": median(network.steps[3:]) / reference,
                "share of enforcement": median(network.enforcing[3:]) / median(network.steps[3:]) if "ours" in name else "-",
            }
        )
    network, bare = ours.model.eval(), plain(ours.model)
    times = [(ours.forward_seconds(network), ours.forward_seconds(bare)) for _ in range(a.steps)]
    ratio = median(first for first, _ in times) / median(second for _, second in times)
    rows.append({**dict.fromkeys(rows[0], "-"), "network": "ours, Euler: evaluation / plain", "time / ours, Euler": ratio})
    write("classifier_step", rows, Path(__file__).parent / "results")


if __name__ == "__main__":
    main()
