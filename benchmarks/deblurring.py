"""Claim: the guided rung beats total variation on every image behind every kernel, by 1.5 dB and more on the mean.

Every run of a rung converges under its theorem; the weakly convex rung is .9 dB and more above it on the mean.

`python benchmarks/deblurring.py --images SET3C/*.png --kernels Levin09.npz`: each image, made gray and whole, behind each
kernel of the file, a uniform one of 9 x 9 and a Gaussian of 25 x 25 and deviation 1.6, with circular convolution and noise of
seed 0, not clipped, started at the blurred image. What a method may choose is fixed for each noise level by
`--tune BSDS500/val`, on crops of other images, or for the explicit rungs, with `--table`, what the package takes. Each run goes
on to the tolerance; behind the kernels of TO_THE_END also to a tenth of it, which tells what the stop has left. Seconds are
processor seconds of one thread; those of a guided run are of all its stages. Figures marked published were not measured here.
How many cases and crops the committed tables are of, they say.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from deconvolvers import METHODS, Levels, Method
from report import write
from skimage.metrics import structural_similarity
from torch import Tensor

import pnp
from pnp import kernels, strengths
from pnp.scenes.blur import simulate
from pnp.scenes.scene import Scene
from stablenet.images.photographs import as_bytes
from stablenet.images.quality import psnr
from stablenet.images.reading import read_image

Case = dict[str, Any]
RESULTS = Path(__file__).parent / "results"
PARAMETERS, RESULT = "deblurring-parameters", {1: "deblurring", 3: "deblurring-color"}
NOISES = (0.01, 0.03, 0.05)
TOLERANCE, TUNING_TOLERANCE, BUDGET = 2e-5, 1e-4, 1500
TO_THE_END = ("k0", "gaussian")
"""The kernels behind which a run goes on to a tenth of the tolerance."""
CROPS, CROP = 6, 128
NAMED = 12
"""The most images that have a column of their own."""
RATIOS = (1.5, 1.2)
"""By which a parameter is multiplied and divided while that helps."""
PUBLISHED = {0.05: {"MMO-FBS": 26.03, "nonexpansive PGD": 26.16, "Prox-DRS": 26.64, "SNORE": 26.94, "PnPI-HQS": 27.60}}
"""CBSD68 in color, the 8 kernels of Levin, in the README of the authors of learned pseudo-contractive denoisers."""


def picture(path: Path, crop: int | None, channels: int) -> Tensor:
    """An image (1, channels, height, width), or the middle of it."""
    pixels = as_bytes(read_image(path), channels).float()[None] / 255
    if crop is None:
        return pixels
    top, left = ((side - crop) // 2 for side in pixels.shape[-2:])
    return pixels[..., top : top + crop, left : left + crop].contiguous()


def blurs(path: Path | None) -> dict[str, Tensor]:
    """The kernels of a file, or else the bundled one, and the two that everybody has."""
    named = (
        {"motion": kernels.motion()}
        if path is None
        else {name: kernels.read_kernel(path, name)[0] for name in kernel_names(path)}
    )
    return {**named, "uniform": kernels.uniform(), "gaussian": kernels.gaussian()}


def kernel_names(path: Path) -> list[str]:
    with np.load(path) as file:
        return sorted(file.files)


def scene_of(image: Tensor, kernel: Tensor, noise: float) -> Scene:
    return simulate(image, kernel, noise_level=noise, boundary="circular", seed=0)


def measure(method: Method, scene: Scene, noise: float, levels: Levels, tolerances: tuple[float, ...]) -> Case:
    """Run to the first tolerance, and on to the others; PSNR, SSIM and costs at the first, and what the last adds."""
    assert scene.reference is not None
    began, found = time.process_time(), {}
    guarantee, steps = method.begin(scene, noise, levels, pnp.Stop(tolerances[-1], BUDGET))
    left = list(tolerances)
    for count, (estimate, residual) in enumerate(itertools.islice(steps, BUDGET), 1):
        while left and residual <= left[0]:
            found[left.pop(0)] = (estimate, count, time.process_time() - began)
        if not left:
            break
    image, evaluations, seconds = found.get(tolerances[0], (estimate, count, time.process_time() - began))
    sharp = scene.reference
    return {
        "guarantee": guarantee,
        "PSNR": psnr(image, sharp),
        "SSIM": float(structural_similarity(sharp[0].numpy(), image[0].numpy(), channel_axis=0, data_range=1.0)),
        "evaluations": evaluations,
        "seconds": seconds,
        "converged": tolerances[0] in found,
        "left": psnr(estimate, sharp) - psnr(image, sharp) if len(tolerances) > 1 else None,
    }


def parameters(rows: list[dict[str, Any]]) -> dict[tuple[str, float], Levels]:
    """What was chosen for each method and noise level."""
    return {(r["method"], r["noise"]): {k: r[k] for k in ("level", "weight") if r[k] != ""} for r in rows}


RUNGS = {"convex ridge": "convex", "weakly convex ridge": "weakly-convex", "guided": "guided"}


def of_the_table() -> list[dict[str, object]]:
    """What the package takes for its rungs, chosen on crops of validation photographs by benchmarks/strengths.py."""
    found: list[dict[str, object]] = []
    for method, rung in RUNGS.items():
        for row in strengths.rows():
            if row.rung == rung:
                values: dict[str, object] = {
                    "method": method,
                    "noise": row.noise_level,
                    "level": row.level,
                    "weight": row.strength,
                }
                found.append({**values, "PSNR on the crops": row.psnr, "parameters tried": "", "crops": row.pictures})
    return found


def tried(method: Method, noise: float, levels: Levels, image: Path, kernel: tuple[Path, str]) -> float:
    scene = scene_of(picture(image, CROP, method.channels), kernels.read_kernel(*kernel)[0], noise)
    return float(measure(method, scene, noise, levels, (TUNING_TOLERANCE,))["PSNR"])


def tune(method: Method, noise: float, images: list[Path], kernel_file: Path, pool: ProcessPoolExecutor) -> dict[str, object]:
    """The parameters with the best mean PSNR on crops, by multiplying and dividing one after the other while that helps."""
    pairs = list(zip(images, ((kernel_file, name) for name in itertools.cycle(kernel_names(kernel_file))), strict=False))
    known: dict[tuple[float, ...], float] = {}

    def score(levels: Levels) -> float:
        key = tuple(round(value, 9) for value in levels.values())
        if key not in known:
            allowed = method.allows(noise, levels)
            runs = pool.map(partial(tried, method, noise, levels), *zip(*pairs, strict=True)) if allowed else ()
            known[key] = mean(runs) if allowed else -float("inf")
        return known[key]

    best = method.first
    for ratio in RATIOS:
        before = None
        while best != before:
            before = best
            for name, factor in itertools.product(best, (ratio, 1 / ratio)):
                while score(moved := {**best, name: best[name] * factor}) > score(best):
                    best = moved
    row: dict[str, object] = {"method": method.name, "noise": noise, **{k: best.get(k, "") for k in ("level", "weight")}}
    return {
        **row,
        "PSNR on the crops": score(best),
        "parameters tried": len(known),
        "crops": f"{len(pairs)} of {CROP} x {CROP}",
    }


def case(task: tuple[Method, float, Levels, Path, int | None, Path | None, str]) -> Case:
    method, noise, levels, image, crop, kernel_file, name = task
    scene = scene_of(picture(image, crop, method.channels), blurs(kernel_file)[name], noise)
    tolerances = (TOLERANCE, TOLERANCE / 10) if name in TO_THE_END else (TOLERANCE,)
    found = measure(method, scene, noise, levels, tolerances)
    size = " x ".join(map(str, scene.start.shape[-2:]))
    told = {
        "method": method.name,
        "channels": method.channels,
        "noise": noise,
        "image": image.stem,
        "size": size,
        "kernel": name,
        "levels": levels,
    }
    return {**told, **found}


def row_of(mine: list[Case], tv: dict[tuple[object, ...], Case], named: list[str]) -> dict[str, object]:
    """One method at one noise level: means over its cases and over those of each image that is named, and the least that it is
    above total variation."""
    first, left = mine[0], [c["left"] for c in mine if c["left"] is not None]
    row: dict[str, object] = {
        "images": f"{len(mine)} cases of {first['size']}",
        "noise": first["noise"],
        "method": first["method"],
    }
    row |= {name: mean(c[name] for c in mine) for name in ("PSNR", "SSIM")}
    for image in named:
        own = [c for c in mine if c["image"] == image]
        values = (f"{mean(c[name] for c in own):.{digits}f}" for name, digits in (("PSNR", 2), ("SSIM", 3)) if own)
        row[f"{image} PSNR / SSIM"] = " / ".join(values)
    same = [(c, tv[c["image"], c["kernel"], c["noise"]]) for c in mine if (c["image"], c["kernel"], c["noise"]) in tv]
    for name in ("PSNR", "SSIM"):
        row[f"least {name} above TV"] = min(c[name] - other[name] for c, other in same) if same else ""
    row |= {"evaluations": mean(c["evaluations"] for c in mine), "processor seconds": mean(c["seconds"] for c in mine)}
    row["converged"] = f"{sum(c['converged'] for c in mine)} of {len(mine)}"
    row["most PSNR left at the stop"] = max(left, key=abs) if left else ""
    return {**row, "guarantee": " or: ".join(sorted({c["guarantee"] for c in mine}))}


def table(cases: list[Case]) -> list[dict[str, object]]:
    tv = {(c["image"], c["kernel"], c["noise"]): c for c in cases if c["method"] == "total variation"}
    rows: list[dict[str, object]] = []
    named = sorted({c["image"] for c in cases})
    named = named if len(named) <= NAMED else []
    for noise in sorted({c["noise"] for c in cases}):
        here = [c for c in cases if c["noise"] == noise]
        rows += [
            row_of([c for c in here if c["method"] == name], tv, named) for name in dict.fromkeys(c["method"] for c in here)
        ]
        published = PUBLISHED.get(noise, {}) if here[0]["channels"] == 3 else {}
        for name, value in published.items():
            row = dict.fromkeys(rows[0], "") | {"images": "CBSD68 color (published)", "noise": noise, "method": name}
            rows.append({**row, "PSNR": value, "guarantee": "not certified"})
    return rows


def carried_out(cases: Iterator[Case], found: list[Case], total: int, folder: Path, kept: Path | None, name: str) -> None:
    """Write the table anew after each case, keeping the rows of other noise levels that are there."""
    file = folder / f"{name}.json"
    earlier = json.loads(file.read_text())["rows"] if file.exists() else []

    def tell(*, show: bool) -> None:
        rows = table(sorted(found, key=lambda c: [m.name for m in METHODS[1]].index(c["method"])))
        rows += [row for row in earlier if row["noise"] not in {new["noise"] for new in rows} and list(row) == list(rows[0])]
        write(name, sorted(rows, key=lambda row: row["noise"]), folder, show=show)

    for c in cases:
        found.append(c)
        print(f"{len(found)}/{total} {c['noise']} {c['kernel']} {c['image']} {c['method']}: {c['PSNR']:.2f} dB,", end=" ")
        print(f"SSIM {c['SSIM']:.3f}, {c['evaluations']} evaluations, {c['seconds']:.1f} s", flush=True)
        if kept is not None:
            with kept.open("a") as lines:
                lines.write(json.dumps(c) + "\n")
        tell(show=False)
    tell(show=True)


def finished(path: Path | None) -> list[Case]:
    """The cases of a file, one a line."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path is not None and path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="*", default=[], help="test images")
    parser.add_argument("--kernels", type=Path, help="an .npz of kernels; without one the bundled kernel stands for them")
    parser.add_argument("--only", nargs="+", help="these kernels alone")
    parser.add_argument("--in-turn", action="store_true", help="each image behind one kernel, the next for the next")
    parser.add_argument("--noise", type=float, nargs="+", default=list(NOISES))
    parser.add_argument("--methods", nargs="+", choices=[m.name for m in METHODS[1]], help="these alone")
    parser.add_argument("--channels", type=int, choices=list(METHODS), default=1, help="3: in color, deblurring-color.json")
    parser.add_argument("--crop", type=int, help="take the middle of each image")
    parser.add_argument("--tune", type=Path, help="a folder of other images, on which the parameters are chosen first")
    parser.add_argument("--table", action="store_true", help="the rungs take what the package takes (data/strengths)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of one thread")
    parser.add_argument("--cases", type=Path, help="a file that keeps finished cases, from which a run goes on")
    parser.add_argument("--output", type=Path, default=RESULTS)
    a = parser.parse_args()
    methods = [m for m in METHODS[a.channels] if (a.methods is None or m.name in a.methods) and m.present]
    file = a.output / f"{PARAMETERS}.json"
    chosen = (
        json.loads((file if file.exists() else RESULTS / file.name).read_text())["rows"] if a.images or file.exists() else []
    )
    if a.table:
        table_rows = of_the_table()
        chosen = [r for r in chosen if r["method"] not in {row["method"] for row in table_rows}] + table_rows
        write(PARAMETERS, chosen, a.output, show=False)
    for m in METHODS[a.channels]:
        if not m.present:
            print(f"{m.name} is left out: {m.weights or m.package} is missing")
    with ProcessPoolExecutor(a.workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        if a.tune is not None:
            images = sorted(a.tune.iterdir())
            images = images[:: max(1, len(images) // CROPS)][:CROPS]
            for method, noise in itertools.product(methods, a.noise):
                row = tune(method, noise, images, a.kernels, pool)
                print(row, flush=True)
                chosen = [r for r in chosen if (r["method"], r["noise"]) != (method.name, noise)] + [row]
                write(PARAMETERS, chosen, a.output, show=False)
        if a.images:
            levels, wanted = parameters(chosen), a.only or list(blurs(a.kernels))
            for m in methods:
                if any((m.name, noise) not in levels for noise in a.noise):
                    print(f"{m.name} is left out: --tune has not chosen its parameters")
            methods = [m for m in methods if all((m.name, noise) in levels for noise in a.noise)]
            places = list(
                zip(itertools.cycle(wanted), a.images, strict=False) if a.in_turn else itertools.product(wanted, a.images)
            )
            order = [(noise, k, image, m) for noise, (k, image), m in itertools.product(a.noise, places, methods)]
            tasks = [(m, noise, levels[m.name, noise], image, a.crop, a.kernels, k) for noise, k, image, m in order]
            keys = {(m.name, noise, k, image.stem): levels[m.name, noise] for noise, k, image, m in order}
            done = [c for c in finished(a.cases) if keys.get((c["method"], c["noise"], c["kernel"], c["image"])) == c["levels"]]
            names = {(c["method"], c["noise"], c["kernel"], c["image"]) for c in done}
            rest = [t for t in tasks if (t[0].name, t[1], t[6], t[3].stem) not in names]
            carried_out(pool.map(case, rest), done, len(tasks), a.output, a.cases, RESULT[a.channels])


if __name__ == "__main__":
    main()
