"""Claim: a nonexpansive denoiser loses PSNR to an unconstrained one, and keeps its output where that one is thrown off.

Color images at noise 0.15, the setting of [Sherry2024]: ten 64-channel gradient-flow blocks with Euler, Heun and RK4, a DnCNN
of 20 layers trained alike (same patches, noise, steps, optimizer and schedule), and total variation. Reported: PSNR, the
certified Lipschitz constant and averagedness, the largest ratio |Tx - Ty|/|x - y| found, and PSNR after the worst
perturbation of the input found within an l2 ball by projected gradient steps.

Run: python benchmarks/stability.py --train FOLDER ... --test FOLDER --steps N. A killed run continues from --output.
The figures depend on --steps, which the table names: they are no figures of the paper.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import deepinv
import torch
from report import write
from safetensors.torch import load_model, save_model
from skimage.restoration import denoise_tv_chambolle
from torch import Tensor, nn
from torch.utils.data import Subset

from stablenet import certify, tableaus
from stablenet.blocks import GradientFlow
from stablenet.certificate import NotCertified
from stablenet.enforcement import Substeps
from stablenet.images.photographs import FolderImages, add_noise, as_image
from stablenet.images.quality import psnr
from stablenet.interlayers import ChannelTruncation, ZeroChannelLift
from stablenet.linear import Conv2d
from stablenet.training.denoiser import DenoiserRecipe, train
from stablenet.training.loop import Schedule

NOISE_LEVEL = 0.15
RADII = (0.0, 0.5, 1.0, 2.0)


def gradient_flow(tableau: tableaus.ButcherTableau, blocks: int, channels: int) -> nn.Sequential:
    """Lift by zero channels, blocks of one tableau under the policy of the paper (substeps), truncate."""
    flows = [
        GradientFlow(Conv2d(channels, channels, 3), nn.LeakyReLU(0.01), tableau=tableau, policy=Substeps())
        for _ in range(blocks)
    ]
    return nn.Sequential(ZeroChannelLift(channels), *flows, ChannelTruncation(3))


def total_variation(noisy: Tensor) -> Tensor:
    pixels = noisy[0].permute(1, 2, 0).numpy()
    found = denoise_tv_chambolle(pixels, weight=0.85 * NOISE_LEVEL, eps=1e-5, max_num_iter=500, channel_axis=-1)
    return torch.from_numpy(found).permute(2, 0, 1)[None].float()


def worst_perturbation(network: nn.Module, noisy: Tensor, clean: Tensor, radius: float, steps: int) -> Tensor:
    """The input within `radius` (l2) of `noisy` with the largest error found by projected, normalized gradient steps."""
    if radius == 0:
        return noisy
    delta = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(0))
    delta *= 0.1 * radius / delta.norm()
    for _ in range(steps):
        delta.requires_grad_()
        error = (network(noisy + delta) - clean).square().sum()
        (slope,) = torch.autograd.grad(error, delta)
        delta = delta.detach() + 0.25 * radius * slope / slope.norm().clamp_min(1e-12)
        delta = delta * (radius / delta.norm()).clamp(max=1)
    return (noisy + delta).detach()


def largest_ratio(network: nn.Module, x: Tensor, steps: int = 30) -> float:
    """A lower bound of the Lipschitz constant: power iteration on the Jacobian at x."""
    v, largest = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), 0.0
    for _ in range(steps):
        v = v / v.norm()
        _, image = torch.autograd.functional.jvp(network, x, v)
        largest = max(largest, float(image.norm()))
        _, v = torch.autograd.functional.vjp(network, x, image)
    return largest


def trained(name: str, network: nn.Module, images: FolderImages, a: argparse.Namespace) -> nn.Module:
    folder = a.output / f"{name}-{a.steps}"
    done = folder / "weights.safetensors"
    model = Unconditional(network.to(memory_format=torch.channels_last))
    if not done.exists():
        schedule = Schedule(
            a.steps,
            learning_rate=a.learning_rate,
            kernel_rate=1.0,
            warmup_steps=a.steps // 10,
            average_decay=0.98,
            validate_every=a.steps,
            checkpoint_every=100,
        )
        recipe = DenoiserRecipe(
            channels=3, noise_level=NOISE_LEVEL, batch_size=a.batch, patch_size=a.patch, weight_power=0.0, schedule=schedule
        )
        *_, (_, average) = train(recipe, images, Subset(images, [0]), folder, fused=False, model=model)
        save_model(average.eval(), str(done))
    load_model(model, done)
    return model.network.eval()


def measure(
    name: str, function: Callable[[Tensor], Tensor], network: nn.Module | None, images: list[Tensor], steps: int, ascents: int
) -> dict[str, object]:
    scores: dict[float, list[float]] = {radius: [] for radius in RADII}
    ratio = 0.0
    for k, clean in enumerate(images):
        noisy = add_noise(clean, NOISE_LEVEL, torch.Generator().manual_seed(k))
        for radius in RADII if network is not None else (0.0,):
            moved = noisy if network is None else worst_perturbation(network, noisy, clean, radius, ascents)
            with torch.no_grad():
                scores[radius].append(psnr(function(moved), clean))
        if network is not None:
            ratio = max(ratio, largest_ratio(network, noisy[..., :64, :64]))
    lipschitz, alpha = "none", "none"
    if network is not None:
        try:
            found = certify(network).certificate
            lipschitz, alpha = found.lipschitz, "none" if found.averagedness is None else found.averagedness
        except NotCertified:
            pass
    row = {"network": name, "training steps": steps, "certified lipschitz": lipschitz, "averagedness": alpha}
    row["largest ratio found"] = ratio if network is not None else ""
    return row | {f"PSNR, perturbed by {radius:g}": mean(values) if values else "" for radius, values in scores.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10, help="how many test images")
    parser.add_argument("--side", type=int, default=256, help="the central so many pixels of each, squared")
    parser.add_argument("--ascents", type=int, default=20, help="gradient steps toward the worst perturbation")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--only", nargs="*", help="networks to take, by part of their names, as Euler")
    parser.add_argument("--output", type=Path, default=Path("runs/stability"), help="checkpoints")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    a = parser.parse_args()
    training = FolderImages(a.train, channels=3)
    images = []
    for image in list(FolderImages([a.test], channels=3))[: a.images]:
        top, left = (max(0, (n - a.side) // 2) for n in image.shape[1:])
        images.append(as_image(image, 3)[None, :, top : top + a.side, left : left + a.side].float() / 255)
    torch.manual_seed(0)
    networks = {
        f"{a.blocks} blocks, {tableau.name}": gradient_flow(tableau, a.blocks, a.channels)
        for tableau in (tableaus.EULER, tableaus.HEUN, tableaus.RK4)
    }
    networks["DnCNN, 20 layers"] = DnCNN()
    if a.only:
        networks = {name: model for name, model in networks.items() if any(part in name for part in a.only)}
    rows = [measure("total variation", total_variation, None, images, 0, 0)]
    for name, model in networks.items():
        network = trained(name.replace(",", "").replace(" ", "-"), model, training, a)
        rows.append(measure(name, network, network, images, a.steps, a.ascents))
        print(rows[-1], flush=True)
        write("stability", rows, a.results, show=name == list(networks)[-1])


class Unconditional(nn.Module):
    """A network for one noise level, called like one for many."""

    channels = 3

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.network(x.contiguous(memory_format=torch.channels_last))


class DnCNN(nn.Module):
    """deepinv's DnCNN without the noise level, which it ignores."""

    def __init__(self, depth: int = 20) -> None:
        super().__init__()
        self.denoiser = deepinv.models.DnCNN(in_channels=3, out_channels=3, depth=depth, pretrained=None)

    def forward(self, x: Tensor) -> Tensor:
        return self.denoiser(x, NOISE_LEVEL)


if __name__ == "__main__":
    main()
