"""Claim: `enforce` alone takes under 3 % of a denoiser's training step, a step with it is under 8 % longer, bf16 beats float32.

Both shares are of a step in bf16 without enforcement, on a processor that has AVX512-BF16: elsewhere bf16 is far slower.

Run: python benchmarks/training_step.py. One step is forward, backward, Adam and (where said) enforce(model), on 16 gray
patches of 48 x 48, 8 blocks of 48 features. Steps of the variants alternate, so that a drifting machine cannot favor one.
The rate counts the convolutions' multiply-adds of the forward pass against this machine's own matrix product.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from report import seconds, write

from stablenet.activations import fuse
from stablenet.enforcement import enforce
from stablenet.networks import Denoiser, DenoiserArchitecture


class Variant:
    """One way to train the denoiser, timed a step at a time."""

    def __init__(self, *, enforced: bool, bf16: bool, fused: bool) -> None:
        torch.manual_seed(0)
        self.model, self.enforced, self.bf16 = Denoiser(DenoiserArchitecture()), enforced, bf16
        fuse(self.model, fused)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3)
        self.times: list[float] = []
        self.x, self.sigma = torch.rand(16, 1, 48, 48), torch.rand(16) * 0.19

    def step(self) -> None:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.model(self.x, self.sigma).float().square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.enforced:
            enforce(self.model)
        self.times.append(time.perf_counter() - start)

    def forward_seconds(self) -> float:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return seconds(lambda: self.model(self.x, self.sigma))


def matmul_rate(dtype: torch.dtype, n: int = 2048) -> float:
    """Multiply-adds times two per second of an n x n matrix product, best of the median."""
    a = torch.randn(n, n).to(dtype)
    return 2 * n**3 / seconds(lambda: a @ a)


def forward_operations(variant: Variant) -> float:
    """Floating-point operations of all convolutions in one forward pass (A and its adjoint, polyphase)."""
    linear = variant.model.blocks[0].linear
    outputs = 16 * 25 * 25
    return len(variant.model.blocks) * 2 * 2 * outputs * linear.polyphase_weight().numel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=15)
    steps = parser.parse_args().steps
    variants = {
        "bf16, fused splines, enforced": Variant(enforced=True, bf16=True, fused=True),
        "bf16, fused splines, not enforced": Variant(enforced=False, bf16=True, fused=True),
        "float32, fused splines, enforced": Variant(enforced=True, bf16=False, fused=True),
        "bf16, plain splines, enforced": Variant(enforced=True, bf16=True, fused=False),
    }
    for _ in range(steps + 3):
        for variant in variants.values():
            variant.step()
    reference = median(variants["bf16, fused splines, not enforced"].times[3:])
    rows = []
    for name, variant in variants.items():
        rate = forward_operations(variant) / variant.forward_seconds()
        limit = matmul_rate(torch.bfloat16 if variant.bf16 else torch.float32)
        rows.append(
            {
                "variant": name,
                "ms a step": 1e3 * median(variant.times[3:]),
                "time / bf16 not enforced": median(variant.times[3:]) / reference,
                "forward GFLOP/s": rate / 1e9,
                "share of the matmul rate": rate / limit,
            }
        )
    enforced = variants["bf16, fused splines, enforced"]
    alone = seconds(lambda: enforce(enforced.model))
    rows.append(
        {
            "variant": "enforce(model) alone",
            "ms a step": 1e3 * alone,
            "time / bf16 not enforced": alone / reference,
            "forward GFLOP/s": "",
            "share of the matmul rate": "",
        }
    )
    write("training_step", rows, Path(__file__).parent / "results")


if __name__ == "__main__":
    main()
