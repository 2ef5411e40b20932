"""The training of `ridge-gray` and `ridge-convex-gray`: python benchmarks/potentials/train_ridge.py BSDS500 runs/ridge.

The loss, the architecture and the enforcement of `stablenet train ridge`, with fused products (fused.py) and batches that are
visited several times (pool.py): 20 times the patches a second.
"""

from __future__ import annotations

import argparse
import copy
import json

import torch
from fused import Fused
from pool import LEVELS, Batch, Photographs, averaged, options, steps
from torch import Tensor

import stablenet
from stablenet.bundled import weights_path
from stablenet.linear.cells import product_matrix
from stablenet.networks import Ridge, RidgeArchitecture, profiles
from stablenet.networks.implicit import conjugate_gradients
from stablenet.networks.proximal_point import proximal_map
from stablenet.potential import Potential
from stablenet.training.recipe import RidgeRecipe
from stablenet.training.schedule import LearningSchedule

ACCURACY, FIRST, AGAIN = 1e-4, 45, 14
"""Of a proximal map, and its gradients at the first visit and at the others."""


def differentiate(ridge: Ridge, batch: Batch, recipe: RidgeRecipe) -> float:
    """Gradients of the loss on a batch, through its proximal map, into `ridge`; the loss."""
    bank, bends, scales = ridge.bank(), profiles.bends(ridge.profile_slopes()), ridge.scales(batch.levels)
    matrix, size = product_matrix(bank), (batch.clean.shape[-2], batch.clean.shape[-1])
    fused = Fused(bank.detach(), bends.detach(), scales.detach(), size)
    fact = Potential(ridge.architecture.weak_convexity, float(ridge.log_curvature.detach().exp()))
    last, v = batch.found.get("x"), batch.found.get("v")
    with torch.no_grad():
        count = FIRST if last is None else AGAIN
        x = proximal_map(fused.gradient, batch.noisy, fact, accuracy=ACCURACY, max_iterations=count, start=last).image
    loss = recipe.loss(x.requires_grad_(True), batch.clean, batch.levels)
    (gradient,) = torch.autograd.grad(loss, x)
    x = x.detach()
    with torch.no_grad():
        hessian = fused.hessian(x)

        def operator(p: Tensor) -> Tensor:
            return p + hessian(p)

        v = conjugate_gradients(operator, gradient, 1e-2, 10 if v is None else 5, v)
        along = fused.pairing(x, v)
    batch.found = {"x": x, "v": v}
    torch.autograd.backward([matrix, bends, scales], [-g for g in along])
    return float(loss.detach())


def begun(a: argparse.Namespace) -> Ridge:
    """A new potential, or one grown from weights."""
    architecture = RidgeArchitecture(
        channels=a.channels, filters=a.filters, kernel_size=a.kernel_size, weak_convexity=a.weak_convexity
    )
    torch.manual_seed(a.seed)
    if a.start is None:
        return Ridge(architecture)
    source = stablenet.load(weights_path(a.start), kind="ridge")
    assert isinstance(source, Ridge)
    return source.grown(architecture).requires_grad_(True)


def write(a: argparse.Namespace, average: Ridge, photographs: Photographs, recipe: RidgeRecipe, count: int) -> None:
    """Weights and card, with PSNR on the six crops."""
    ridge = copy.deepcopy(average).requires_grad_(False).eval()
    scores = {
        f"psnr_{k}": photographs.score(ridge.denoise(photographs.noisy_crops(k), k / 255, accuracy=5e-3).image) for k in LEVELS
    }
    note = f"each batch was visited {a.visits} times, its proximal maps solved from where they stood"
    stablenet.save(ridge, a.output, recipe=json.loads(recipe.to_json()), steps=count, validation=scores, note=note)
    print(count, {name: round(value, 3) for name, value in scores.items()}, flush=True)


def main() -> None:
    parser = options(__doc__ or "", minutes=6.0, rate=8e-3, pool=24, visits=7, decay=0.995)
    parser.add_argument("--start", help="a shipped name or a path")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--kernel-size", type=int, default=11)
    parser.add_argument("--weak-convexity", type=float, default=0.9)
    a = parser.parse_args()
    torch.set_num_threads(1)
    ridge, photographs = begun(a), Photographs(a.photographs, a.channels, a.seed + 1)
    ridge.enforce()
    average = copy.deepcopy(ridge)
    schedule = LearningSchedule(1, a.rate, kernel_rate=0.15, warmup_steps=a.warmup, average_decay=a.decay, gradient_clip=0.02)
    shape = {"batch_size": a.batch, "patch_size": a.patch, "seed": a.seed, "start": a.start}
    recipe = RidgeRecipe(ridge.architecture, error="square", weight_power=1.5, stratified=True, schedule=schedule, **shape)
    others = [p for name, p in ridge.named_parameters() if name != "kernels"]
    groups = [{"params": others, "share": 1.0}, {"params": [ridge.kernels], "share": schedule.kernel_rate}]
    optimizer, count = torch.optim.Adam(groups, betas=(0.9, 0.99)), 0
    for step in steps(a, lambda: photographs.patches(a.batch, a.patch, ridge.max_noise_level)):
        optimizer.zero_grad()
        differentiate(ridge, step.batch, recipe)
        torch.nn.utils.clip_grad_norm_(ridge.parameters(), schedule.gradient_clip)
        for group in optimizer.param_groups:
            group["lr"] = a.rate * step.rate * group["share"]
        optimizer.step()
        ridge.enforce()
        averaged(average, ridge, step.index, a.decay)
        count = step.index + 1
        if step.looks:
            write(a, average, photographs, recipe, count)
    write(a, average, photographs, recipe, count)


if __name__ == "__main__":
    main()
