"""The training of `denoiser-gray-guided`: python benchmarks/potentials/train_guided.py BSDS500 runs/guided --ridge ridge-gray.

The loss and the network of `stablenet train guided`, with fused products (fused.py) and batches that are visited several times
(pool.py): each guide is made as in use, the potential's own estimate, then the last result.
"""

from __future__ import annotations

import argparse
import copy
import json

import torch
from blurring import MARGIN, Blurred, beginnings, behind
from fused import Fused, Operator
from pool import LEVELS, Batch, Photographs, averaged, options, steps
from torch import Tensor

import stablenet
from stablenet.bundled import weights_path
from stablenet.images.quality import psnr
from stablenet.networks import Guided, Ridge, profiles
from stablenet.networks.guided import Guidance
from stablenet.networks.implicit import conjugate_gradients
from stablenet.networks.proximal_point import proximal_map
from stablenet.potential import certify
from stablenet.training.recipe import GuidedRecipe

ACCURACY = 5e-4
ITERATIONS = {False: ((25, 15), (10, 6)), True: ((40, 25), (15, 10))}
"""Of the resolvent and of its derivative, at the first visit and at the others, without and with a blur."""
REWEIGHTINGS = 6
BLURRED = (0.01, 0.03, 0.05)
"""Noise of the deblurring that is looked at."""
OUTLIER = 3.0
"""A gradient longer than so many times the running mean is shortened to that."""


def weights(guided: Guided, fused: Fused, guide: Tensor, batch: Batch) -> Tensor:
    """m (cells, 4 pixels x features), differentiable in the network that sets them."""
    with torch.no_grad():
        u = fused.features(guide).view(fused.batch, -1, 4, fused.outputs).float()
        v = u / fused.scales[:, None, None, :]
        seen = (v, profiles.weight(v, fused.bends.t().contiguous()))
        shape = (fused.batch, fused.rows, fused.columns, -1)
        v, weight = (t.reshape(shape).permute(0, 3, 1, 2) for t in seen)
    with torch.autocast("cpu", torch.bfloat16):
        found = guided.weighing(v, weight, batch.levels, batch.blur.noise if isinstance(batch, Blurred) else batch.levels)
    return found.permute(0, 2, 3, 1).reshape(len(u) * fused.rows * fused.columns, -1)


def fused_at(ridge: Ridge, levels: Tensor, size: tuple[int, int]) -> Fused:
    """The potential at noise levels (batch,), for images of a size."""
    return Fused(ridge.bank(), profiles.bends(ridge.profile_slopes()), ridge.scales(levels), size)


def first_guide(fused: Fused, ridge: Ridge, batch: Batch) -> Tensor:
    """The potential's own estimate: its proximal map or, behind a blur, a minimiser by reweighting at its own level."""
    if not isinstance(batch, Blurred):
        return proximal_map(fused.gradient, batch.noisy, certify(ridge), accuracy=ACCURACY, max_iterations=50).image
    levels, shares = beginnings(batch.blur)
    begun = fused_at(ridge, levels, fused.size)
    x, right = batch.noisy, batch.blur.adjoint(batch.noisy)
    for _ in range(REWEIGHTINGS):
        x = conjugate_gradients(system(batch, begun.reweighted(x), shares), right, ACCURACY, 12, x)
    return x


def system(batch: Batch, quadratic: Operator, shares: Tensor | None = None) -> Operator:
    """x -> A^T A x + share quadratic(x), for a batch behind no blur x + quadratic(x)."""
    if not isinstance(batch, Blurred):
        return lambda p: p + quadratic(p)
    share = (batch.shares if shares is None else shares)[:, None, None, None]
    return lambda p: batch.blur.normal(p) + share * quadratic(p)


def differentiate(guided: Guided, batch: Batch, recipe: GuidedRecipe) -> list[float]:
    """Gradients of the loss on a batch, every refresh of the guide in it, into the network; the losses."""
    ridge, size = guided.ridge, (batch.clean.shape[-2], batch.clean.shape[-1])
    fused = fused_at(ridge, batch.levels, size)
    if "guide" not in batch.found:
        with torch.no_grad():
            batch.found["guide"] = first_guide(fused, ridge, batch)
    blurred = isinstance(batch, Blurred)
    right = batch.blur.adjoint(batch.noisy) if blurred else batch.noisy
    inner = slice(MARGIN, -MARGIN) if blurred else slice(None)
    guide, losses = batch.found["guide"], []
    for stage in range(recipe.refreshes):
        m = weights(guided, fused, guide, batch)
        operator = system(batch, fused.weighted(m.detach().bfloat16().contiguous()))
        last = batch.found.get(f"x{stage}"), batch.found.get(f"v{stage}")
        forward, backward = ITERATIONS[blurred][last[0] is not None]
        start = guide if last[0] is None else last[0]
        x = conjugate_gradients(operator, right, ACCURACY, forward, start).requires_grad_(True)
        loss = recipe.loss(x[..., inner, inner], batch.clean[..., inner, inner], batch.levels) / recipe.refreshes
        (gradient,) = torch.autograd.grad(loss, x)
        x = x.detach()
        v = conjugate_gradients(operator, gradient, 2e-2, backward, last[1])
        with torch.no_grad():
            along = -(fused.features(x).float() * fused.features(v).float()).view(fused.batch, -1)
            along = along * batch.shares[:, None] if blurred else along
        m.backward(along.view(m.shape))
        batch.found |= {f"x{stage}": x, f"v{stage}": v}
        guide = x
        losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def deblurred(guided: Guided, photographs: Photographs, noise: float, refreshes: int) -> list[float]:
    """Mean PSNR on the insides of six crops behind blurs: of the first guide and of each refresh."""
    batch = behind(photographs.crops, torch.Generator().manual_seed(int(1000 * noise)), guided.max_noise_level, noise)
    ridge, inner = guided.ridge, slice(MARGIN, -MARGIN)
    size = (batch.clean.shape[-2], batch.clean.shape[-1])
    fused = fused_at(ridge, batch.levels, size)
    x, right = first_guide(fused, ridge, batch), batch.blur.adjoint(batch.noisy)
    found = [x]
    for _ in range(refreshes):
        operator = system(batch, fused.weighted(weights(guided, fused, x, batch).bfloat16().contiguous()))
        x = conjugate_gradients(operator, right, ACCURACY, 80, x)
        found.append(x)
    pairs = [(restored[..., inner, inner], batch.clean[..., inner, inner]) for restored in found]
    return [sum(psnr(p, q) for p, q in zip(a, b, strict=True)) / len(a) for a, b in pairs]


def write(a: argparse.Namespace, average: Guided, photographs: Photographs, recipe: GuidedRecipe, count: int) -> None:
    """Weights and card, with PSNR on the six crops."""
    guided = copy.deepcopy(average).requires_grad_(False).eval()
    scores = {
        f"psnr_{k}": photographs.score(guided.denoise(photographs.noisy_crops(k), k / 255, refreshes=a.refreshes))
        for k in LEVELS
    }
    if a.blurred:
        scores |= {f"deblurring_{noise:g}": deblurred(guided, photographs, noise, a.refreshes)[-1] for noise in BLURRED}
    note = (
        f"{a.blurred:g} of the batches behind simulated motion blurs; each was visited {a.visits} times, its resolvents "
        "solved from where they stood"
    )
    stablenet.save(guided, a.output, recipe=json.loads(recipe.to_json()), steps=count, validation=scores, note=note)
    print(count, {name: round(value, 3) for name, value in scores.items()}, flush=True)


def main() -> None:
    parser = options(__doc__ or "", minutes=50.0, rate=1e-3, pool=32, visits=3, decay=0.998)
    parser.add_argument("--ridge", default="ridge-gray", help="a shipped name or a path")
    parser.add_argument("--start", help="a guided denoiser whose network is trained on")
    parser.add_argument("--refreshes", type=int, default=2)
    parser.add_argument("--blurred", type=float, default=0.5, help="share of the batches that are behind motion blurs")
    a = parser.parse_args()
    torch.set_num_threads(1)
    ridge = stablenet.load(weights_path(a.ridge), kind="ridge")
    assert isinstance(ridge, Ridge)
    torch.manual_seed(a.seed)
    recipe = GuidedRecipe(start=a.ridge, refreshes=a.refreshes, batch_size=a.batch, patch_size=a.patch, seed=a.seed)
    shape = recipe.architecture
    guided = Guided(Guidance(ridge.requires_grad_(False), shape.width, shape.dilations, shape.steepest))
    if a.start is not None:
        guided.weighing.load_state_dict(stablenet.load(weights_path(a.start), kind="guided").weighing.state_dict())
    network = guided.weighing.to(memory_format=torch.channels_last)
    photographs, average = Photographs(a.photographs, ridge.channels, a.seed + 1), copy.deepcopy(guided)
    optimizer, mean, count = torch.optim.Adam(network.parameters(), lr=a.rate, betas=(0.9, 0.99)), 0.0, 0

    def draw() -> Batch:
        if not photographs.chance(a.blurred):
            return photographs.patches(a.batch, a.patch, ridge.max_noise_level)
        clean = photographs.patches(a.batch // 2, a.patch * 3 // 2, 0.0).clean
        return behind(clean, photographs.generator, ridge.max_noise_level)

    for step in steps(a, draw):
        optimizer.zero_grad()
        differentiate(guided, step.batch, recipe)
        found = float(torch.nn.utils.clip_grad_norm_(network.parameters(), OUTLIER * mean or 1e9))
        mean = found if step.index == 0 else 0.98 * mean + 0.02 * min(found, OUTLIER * mean)
        optimizer.param_groups[0]["lr"] = a.rate * step.rate
        optimizer.step()
        averaged(average, guided, step.index, a.decay)
        count = step.index + 1
        if step.looks:
            write(a, average, photographs, recipe, count)
    write(a, average, photographs, recipe, count)


if __name__ == "__main__":
    main()
