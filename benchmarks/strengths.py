"""Claim: behind a motion blur the weakly convex rung is above the averaged one, by .25 dB at noise 0.05 and by more below.

`python benchmarks/strengths.py KERNELS.npz PHOTOGRAPHS` searches, for each rung and noise level, the level and the strength of
the prior that give the best mean PSNR, from a place on a grid to the best of its neighbors while that helps, on crops of
photographs that no test uses (every few of a folder, made gray, the middle 96 x 96 pixels), each behind a kernel of its own,
and writes data/strengths/strengths.json, from which `pnp.Descent` reads its defaults and the commands their ladder. PGD's
strength is the one that it settles by itself.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from report import write
from torch import Tensor, nn

import pnp
import stablenet
from pnp import kernels, strengths
from pnp.scenes.blur import simulate
from pnp.strengths import Row
from stablenet.files import aside
from stablenet.images.reading import read_image

NOISE_LEVELS = (0.01, 0.03, 0.05)
LEVELS = (1.0, 1.5, 2.0, 2.5, 3.5, 5.0, 7.0)
STRENGTHS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4)
FIRST = (4, 3)
"""Where the search begins in the two."""
RUNGS = {
    "convex": "ridge-convex-gray",
    "averaged": "denoiser-gray-small",
    "weakly-convex": "ridge-gray",
    "guided": "deblurring-gray-guided",
}
REFRESHES = 2
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


def descended(
    denoiser: nn.Module, posed: list[pnp.Problem], level: float, strength: float, *, guided: bool
) -> list[pnp.Solution]:
    """Of an explicit potential; guided from its own beginning, by that one's place in the table as it stands."""
    chosen: dict[str, Any] = {"scheme": pnp.QuasiNewton(), "stop": pnp.Stop(1e-4, 150)}
    found = []
    for p in posed:
        algorithm, chosen["denoiser_noise_level"] = pnp.Descent(weight=strength / level**2), level * p.noise_level
        if guided:
            found.append(pnp.solve_guided(algorithm, p, None, denoiser, refreshes=REFRESHES, **chosen))
        else:
            found.append(pnp.solve(algorithm, p, denoiser, **chosen))
    return found


def search(rung: str, denoiser: nn.Module, posed: list[pnp.Problem], images: list[Tensor]) -> Row:
    """The best of the grid."""
    noise_level, end = posed[0].noise_level, pnp.prior(denoiser).accepts.max_noise_level or math.inf
    pictures = f"{len(images)} crops of validation photographs, one motion kernel each"
    row = Row("deblurring", rung, "PGD", RUNGS[rung], 1, noise_level, 0.0, 0.0, -math.inf, pictures)
    if rung == "averaged":
        clipped = pnp.prior(pnp.Clipped(denoiser))
        found = [pnp.solve(pnp.PGD(), p, clipped, scheme=pnp.Anderson(), stop=pnp.Stop(1e-4, 300)) for p in posed]
        return replace(row, level=found[0].denoiser_noise_level / noise_level, strength=1.0, psnr=mean_psnr(found, images))
    known: dict[tuple[int, int], float] = {}

    def score(place: tuple[int, int]) -> float:
        i, j = place
        if not (0 <= i < len(LEVELS) and 0 <= j < len(STRENGTHS)) or LEVELS[i] * noise_level > end:
            return -math.inf
        if place not in known:
            known[place] = mean_psnr(descended(denoiser, posed, LEVELS[i], STRENGTHS[j], guided=rung == "guided"), images)
            print(
                f"  {rung} noise {noise_level:g} level {LEVELS[i]:g} strength {STRENGTHS[j]:g}: {known[place]:.3f} dB",
                flush=True,
            )
        return known[place]

    best, moved = None, FIRST
    while LEVELS[moved[0]] * noise_level > end:
        moved = (moved[0] - 1, moved[1])
    while best != moved:
        best = moved
        moved = max([best, *((best[0] + i, best[1] + j) for i, j in ((-1, 0), (1, 0), (0, -1), (0, 1)))], key=score)
    level, strength = LEVELS[best[0]], STRENGTHS[best[1]]
    return replace(row, algorithm="Descent", level=level, strength=strength, psnr=known[best])


def written(path: Path, rows: list[Row]) -> list[Row]:
    """The table with these rows for those of their rungs."""
    kept = [Row(**row) for row in json.loads(path.read_text())["rows"]] if path.exists() else []
    found = {row.rung for row in rows}
    whole = [*(row for row in kept if row.rung not in found), *rows]
    whole.sort(key=lambda row: (list(RUNGS).index(row.rung), row.noise_level))
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside(path) as part:
        part.write_text(
            json.dumps({"script": "benchmarks/strengths.py", "rows": [asdict(row) for row in whole]}, indent=2) + "\n"
        )
    strengths.rows.cache_clear()
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernels", type=Path, help="an .npz of kernels")
    parser.add_argument("photographs", type=Path, help="a folder")
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--rungs", nargs="+", choices=list(RUNGS), default=list(RUNGS))
    parser.add_argument("--table", type=Path, default=Path(__file__).parents[1] / "data/strengths/strengths.json")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    images = crops(arguments.photographs, arguments.count)
    for rung in arguments.rungs:
        denoiser, rows = stablenet.pretrained(RUNGS[rung]), []
        for noise_level in NOISE_LEVELS:
            began = time.process_time()
            row = search(rung, denoiser, problems(images, arguments.kernels, noise_level), images)
            rows.append(row)
            print(f"{row} in {time.process_time() - began:.0f} s", flush=True)
        whole = written(arguments.table, rows)  # a guided one begins by the row of its potential
        write("strengths", [asdict(row) for row in whole], arguments.output)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
