"""Claim: behind a motion blur the weakly convex rung is above the averaged one, by .25 dB at noise 0.05 and by more below.

`python benchmarks/strengths.py KERNELS.npz PHOTOGRAPHS` searches, for each rung and noise level, the level and the strength of
the prior that give the best mean PSNR on crops of photographs that no test uses (every few of a folder, made gray, the middle
96 x 96 pixels), each behind a kernel of its own, and writes data/strengths/strengths.json, from which `pnp.Descent` reads its
defaults and the commands their ladder. PGD's strength is the one that it settles by itself.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from report import write
from torch import Tensor

import pnp
import stablenet
from pnp import kernels
from pnp.scenes.blur import simulate
from pnp.strengths import Row
from stablenet.files import aside
from stablenet.images.reading import read_image

NOISE_LEVELS = (0.01, 0.03, 0.05)
LEVELS = (1.5, 2.0, 2.5, 3.5)
STRENGTHS = (0.3, 0.45, 0.65)
RUNGS = {"convex": "ridge-convex-gray", "averaged": "denoiser-gray-small", "weakly-convex": "ridge-gray"}
KERNELS = ("k1", "k4", "k6", "k2")
SIDE = 96


def crops(folder: Path, count: int) -> list[Tensor]:
    """The middles of every few photographs, gray."""
    files = sorted(folder.iterdir())
    found = []
    for path in files[:: len(files) // count][:count]:
        pixels = read_image(path).pixels.mean(1, keepdim=True)
        top, left = ((side - SIDE) // 2 for side in pixels.shape[-2:])
        found.append(pixels[..., top : top + SIDE, left : left + SIDE].contiguous())
    return found


def problems(images: list[Tensor], path: Path, noise_level: float) -> list[pnp.Problem]:
    """Each image behind a kernel of its own."""
    posed = []
    for k, image in enumerate(images):
        kernel, _ = kernels.read_kernel(path, KERNELS[k % len(KERNELS)])
        scene = simulate(image, kernel, noise_level=noise_level, boundary="circular", seed=k)
        posed.append(pnp.pose(scene.measurement, scene.physics, noise_level=noise_level))
    return posed


def mean_psnr(found: list[pnp.Solution], images: list[Tensor]) -> float:
    errors = [float((s.estimate - x).square().mean()) for s, x in zip(found, images, strict=True)]
    return sum(-10 * math.log10(e) for e in errors) / len(errors)


def descended(prior: pnp.priors.Prior, posed: list[pnp.Problem], level: float, strength: float) -> list[pnp.Solution]:
    stop = pnp.Stop(1e-4, 150)
    return [
        pnp.solve(pnp.Descent(weight=strength / level**2), p, prior, denoiser_noise_level=level * p.noise_level, stop=stop)
        for p in posed
    ]


def search(rung: str, prior: pnp.priors.Prior, posed: list[pnp.Problem], images: list[Tensor], name: str) -> Row:
    """The best of the grid, level by level while it gets better."""
    noise_level, end = posed[0].noise_level, prior.accepts.max_noise_level or math.inf
    pictures = f"{len(images)} crops of validation photographs, one motion kernel each"
    row = Row("deblurring", rung, "PGD", name, 1, noise_level, 0.0, 0.0, -math.inf, pictures)
    if prior.potential is None:
        found = [pnp.solve(pnp.PGD(), p, prior, scheme=pnp.Anderson(), stop=pnp.Stop(1e-4, 300)) for p in posed]
        return replace(row, level=found[0].denoiser_noise_level / noise_level, strength=1.0, psnr=mean_psnr(found, images))
    for level in LEVELS:
        if level * noise_level > end:
            break
        before = row.psnr
        for strength in STRENGTHS:
            psnr = mean_psnr(descended(prior, posed, level, strength), images)
            print(f"  {rung} noise {noise_level:g} level {level:g} strength {strength:g}: {psnr:.3f} dB", flush=True)
            if psnr > row.psnr:
                row = replace(row, algorithm="Descent", level=level, strength=strength, psnr=psnr)
        if row.psnr == before:
            break
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernels", type=Path, help="an .npz of kernels")
    parser.add_argument("photographs", type=Path, help="a folder")
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--rungs", nargs="+", choices=list(RUNGS), default=list(RUNGS))
    parser.add_argument("--table", type=Path, default=Path(__file__).parents[1] / "data/strengths/strengths.json")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    images, rows = crops(arguments.photographs, arguments.count), []
    for rung in arguments.rungs:
        denoiser = stablenet.pretrained(RUNGS[rung])
        prior = pnp.prior(denoiser if rung != "averaged" else pnp.Clipped(denoiser))
        for noise_level in NOISE_LEVELS:
            began = time.process_time()
            row = search(rung, prior, problems(images, arguments.kernels, noise_level), images, RUNGS[rung])
            rows.append(row)
            print(f"{row} in {time.process_time() - began:.0f} s", flush=True)
    arguments.table.parent.mkdir(parents=True, exist_ok=True)
    with aside(arguments.table) as part:
        part.write_text(
            json.dumps({"script": "benchmarks/strengths.py", "rows": [asdict(row) for row in rows]}, indent=2) + "\n"
        )
    write("strengths", [asdict(row) for row in rows], arguments.output)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
