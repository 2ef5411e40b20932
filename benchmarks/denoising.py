"""Claim: ours beats total variation, the other proved denoiser run here, by 0.4 dB; the best one published is 0.07 dB ahead.

Both are nonexpansive by proof; the published one is CRR-NN on BSD68. BM3D, without a proof, is 0.5 dB and more ahead of it. The
guided denoiser, linear and firmly nonexpansive while its guide is held fixed, is 0.3 dB above BM3D's published figures when its
guides are its own estimates, of which map no theorem speaks.

Run: python benchmarks/denoising.py --gray FOLDER ... --color FOLDER ... --tune FOLDER (for instance BSD68 and Set12,
CBSD68, and Set12 again to pick the weight of total variation). Image k gets the noise of seed 1000 s + k for s = 0, 1, 2,
unclipped; PSNR with peak 1 and SSIM are means over images and seeds. What is left of the noise on a constant gray image is a
root mean square in units of 1/255, in all and by radial frequency in cycles a pixel (`stablenet.flatness`). BM3D runs where
the package bm3d is installed, DnCNN and DRUNet where --dncnn or --drunet names their deepinv weights. Figures marked
published were not measured here. LPIPS is left out: its weights are a download. --resume goes on with a killed run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from report import write
from skimage.metrics import structural_similarity
from skimage.restoration import denoise_tv_chambolle, denoise_wavelet
from torch import Tensor

from stablenet import certify, potential
from stablenet.bundled import available
from stablenet.evaluation import OwnGuide
from stablenet.flatness import flat_noise, total
from stablenet.images.photographs import FolderImages, add_noise, as_image
from stablenet.images.quality import psnr
from stablenet.networks import Guided
from stablenet.weights import pretrained

Denoise = Callable[[Tensor, float], Tensor]
FLAT_EDGES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, inf)
FLAT = ("flat noise", "below 1/32", "1/32 to 1/16", "1/16 to 1/8", "1/8 to 1/4", "above 1/4")
COLUMNS = ("images", "noise", "method", "guarantee", "PSNR", "SSIM", *FLAT, "processor seconds an image", "seeds")
TUNING_IMAGES = 12
TV_GRID = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
PUBLISHED = {
    1: [
        ("CRR-NN", "firmly nonexpansive (prox of a learned convex function)", {5: 36.96, 15: 30.54, 25: 28.10}),
        ("the same with ReLU", "firmly nonexpansive", {5: 35.4, 25: 26.7}),
        ("WCRR-NN", "convex energy, not nonexpansive", {5: 37.65, 15: 31.21, 25: 28.68}),
        ("BM3D", "none", {15: 31.08, 25: 28.57}),
        ("DnCNN", "none", {15: 31.73, 25: 29.23}),
        ("DRUNet", "none", {15: 31.91, 25: 29.48}),
    ],
    3: [
        ("DRUNet, nonexpansive penalty", "penalized, not certified", {15: 32.54, 25: 30.12, 40: 28.00}),
        ("DRUNet, firmly nonexpansive penalty", "penalized, not certified", {15: 32.21, 25: 29.99, 40: 27.87}),
        ("DRUNet", "none", {15: 34.14, 25: 31.54, 40: 29.33}),
    ],
}


@dataclass(frozen=True)
class Method:
    """A denoiser under test: its name, what is guaranteed of it, and the function of (noisy image, noise level)."""

    name: str
    guarantee: str
    function: Denoise
    seeds: int

    @property
    def key(self) -> tuple:
        return self.name, self.guarantee, self.seeds


def as_numpy(image: Tensor) -> np.ndarray:
    """(channels, height, width) to (height, width) or (height, width, 3)."""
    return image[0].numpy() if image.shape[0] == 1 else image.permute(1, 2, 0).numpy()


def as_tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array if array.ndim == 3 else array[..., None])).permute(2, 0, 1).float()


def arrays(function: Callable[[np.ndarray, float], np.ndarray]) -> Denoise:
    return lambda noisy, sigma: as_tensor(function(as_numpy(noisy), sigma))


def total_variation(factor: float) -> Denoise:
    def denoise(noisy: np.ndarray, sigma: float) -> np.ndarray:
        axis = -1 if noisy.ndim == 3 else None
        return denoise_tv_chambolle(noisy, weight=factor * sigma, eps=1e-5, max_num_iter=500, channel_axis=axis)

    return arrays(denoise)


def wavelet(noisy: np.ndarray, sigma: float) -> np.ndarray:
    axis = -1 if noisy.ndim == 3 else None
    return denoise_wavelet(noisy, sigma=sigma, channel_axis=axis, convert2ycbcr=axis is not None, rescale_sigma=True)


def deepinv_total_variation(factor: float) -> Denoise:
    import deepinv

    return lambda noisy, sigma: deepinv.models.TVDenoiser(n_it_max=500)(noisy[None], factor * sigma)[0]


def ours(name: str, seeds: int) -> Method:
    network = pretrained(name)
    certificate = certify(network).certificate  # from the weights, in this run
    if isinstance(network, Guided):
        averaged = f"averagedness <= {certificate.averagedness:.4f} for every guide held fixed"
        kind = f"{averaged}, certified in this run; its two guides are its own estimates"
        network = OwnGuide(network)
    elif certificate.averagedness is None:
        weak = potential.certify(network).weak_convexity
        kind = f"proximal map of a potential of weak convexity <= {weak:.4f}, certified in this run"
    else:
        kind = f"lipschitz <= {certificate.lipschitz:g}, averagedness <= {certificate.averagedness:.4f}, certified in this run"

    @torch.inference_mode()
    def denoise(noisy: Tensor, sigma: float) -> Tensor:
        return network(noisy[None], sigma)[0]

    return Method(name, kind, denoise, seeds)


def peers(channels: int, factor: float, weights: dict[str, str | None], seeds: int, slow_seeds: int) -> list[Method]:
    proof = f"firmly nonexpansive up to its tolerance; weight {factor:g} sigma"
    found = [
        Method("TV (scikit-image)", proof, total_variation(factor), seeds),
        Method("TV (deepinv)", proof, deepinv_total_variation(factor), slow_seeds),
    ]
    try:
        import pywt  # noqa: F401 - scikit-image's wavelets need it

        dependent = "none (thresholds depend on the image)"
        found.append(Method("wavelet, BayesShrink (scikit-image)", dependent, arrays(wavelet), seeds))
    except ImportError:
        print("wavelets are left out: pip install PyWavelets")
    try:
        import bm3d

        found.append(Method("BM3D (bm3d)", "none", arrays(bm3d.bm3d if channels == 1 else bm3d.bm3d_rgb), slow_seeds))
    except ImportError:
        print("BM3D is left out: pip install bm3d (free for non-commercial use)")
    for name, path in weights.items():
        if path is None:
            print(f"{name} is left out: give its deepinv weights with --{name.lower()}")
            continue
        import deepinv

        model = getattr(deepinv.models, name)(in_channels=channels, out_channels=channels, pretrained=path).eval()
        function = torch.inference_mode()(lambda noisy, sigma, model=model: model(noisy[None], sigma)[0])
        found.append(Method(name, "none", function, slow_seeds))
    return found


def measure(method: Method, images: list[Tensor], level: float) -> tuple[float, float, float]:
    """Mean PSNR, mean SSIM and median processor seconds an image (all cores together; other work does not disturb them)."""
    scores, similar, times = [], [], []
    for seed in range(method.seeds):
        for k, clean in enumerate(images):
            noisy = add_noise(clean, level, torch.Generator().manual_seed(1000 * seed + k))
            start = time.process_time()
            estimate = method.function(noisy, level)
            times.append(time.process_time() - start)
            scores.append(psnr(estimate, clean))
            axis = -1 if clean.shape[0] == 3 else None
            similar.append(structural_similarity(as_numpy(clean), as_numpy(estimate), data_range=1.0, channel_axis=axis))
    return mean(scores), float(mean(similar)), median(times)


def left_on_flat(method: Method, channels: int, level: float) -> tuple[float, ...]:
    """What is left of noise on a constant image, in all and in each band, in units of 1/255."""
    bands = flat_noise(lambda y, sigma: method.function(y[0], sigma)[None], level, channels=channels, edges=FLAT_EDGES)
    return tuple(255 * value for value in (total(bands), *bands.values()))


def best_factor(folder: Path | None, channels: int, level: float) -> float:
    """The weight of total variation, as a multiple of the noise level, with the best PSNR on the first tuning images."""
    if folder is None:
        return 0.5 if level < 8 / 255 else 0.7 if level < 18 / 255 else 0.8
    images = load(folder, channels, TUNING_IMAGES)
    return max(TV_GRID, key=lambda f: measure(Method("", "", total_variation(f), 1), images, level)[0])


def load(folder: Path, channels: int, count: int | None) -> list[Tensor]:
    dataset = FolderImages([folder], channels=channels)
    return [as_image(image, channels).float() / 255 for image in list(dataset)[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gray", type=Path, nargs="*", default=[], help="folders of gray test images")
    parser.add_argument("--color", type=Path, nargs="*", default=[], help="folders of color test images")
    parser.add_argument("--tune", type=Path, help="folder on which the weight of total variation is picked")
    parser.add_argument("--noise", type=int, nargs="+", default=[5, 15, 25, 40], help="in units of 1/255; color never at 5")
    parser.add_argument("--images", type=int, help="only the first so many of each folder")
    parser.add_argument("--seeds", type=int, default=3, help="of ours and the fast peers")
    parser.add_argument("--slow-seeds", type=int, default=3, help="of deepinv's TV, BM3D and networks")
    parser.add_argument("--skip", nargs="*", default=[], help="names to leave out, as BM3D or denoiser-gray")
    parser.add_argument(
        "--resume", action="store_true", help="keep what --output has of these very methods, of other folders and of peers"
    )
    parser.add_argument("--dncnn", help="path of deepinv's DnCNN weights")
    parser.add_argument("--drunet", help="path of deepinv's DRUNet weights")
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    a = parser.parse_args()
    if not a.gray and not a.color:
        parser.error("give folders of test images with --gray or --color")
    earlier = read_rows(a.output / "denoising.json") if a.resume else {}
    rows: list[dict[str, object]] = []
    for channels, folders, numbers in ((1, a.gray, (5, 15, 25, 40)), (3, a.color, (15, 25, 40))):
        kind = "gray" if channels == 1 else "color"
        named = [name for name in available() if f"-{kind}" in name and not name.startswith("deblurring-")]
        networks = [ours(name, a.seeds) for name in named if name not in a.skip]
        for number in (n for n in numbers if n in a.noise):
            methods = list(networks)
            if not a.only_ours:
                factor = best_factor(a.tune, channels, number / 255)
                weights = {"DnCNN": a.dncnn, "DRUNet": a.drunet}
                found = peers(channels, factor, weights, a.seeds, a.slow_seeds)
                methods += [m for m in found if not any(name in m.name for name in a.skip)]
            for folder in folders:
                images = load(folder, channels, a.images)
                label = f"{folder.name} ({len(images)})"
                for method in methods:
                    row = earlier.pop((label, number, *method.key), None)
                    if row is None:
                        score, similar, seconds = measure(method, images, number / 255)
                        left = left_on_flat(method, channels, number / 255)
                        values = (method.name, method.guarantee, score, similar, *left, seconds, method.seeds)
                        row = dict(zip(COLUMNS, (label, number, *values), strict=True))
                    rows.append(row)
                    print(row, flush=True)
                    write("denoising", [*rows, *earlier.values()], a.output, show=False)
                if folder.name.lower() in ("bsd68", "cbsd68"):
                    for name, guarantee, table in PUBLISHED[channels]:
                        if number in table:
                            values = (f"{name} (published)", guarantee, table[number], *[""] * (len(COLUMNS) - 5))
                            rows.append(dict(zip(COLUMNS, (label, number, *values), strict=True)))
    here = {(row["images"], row["noise"]) for row in rows}
    rows += [row for row in earlier.values() if (row["images"], row["noise"]) not in here or is_a_peer(row)]
    rows.sort(key=lambda row: (row["images"], row["noise"]))
    write("denoising", rows, a.output)


def is_a_peer(row: dict[str, object]) -> bool:
    """Measured here, and not ours: what was measured of other weights of ours goes."""
    return row["method"] not in available() and "published" not in str(row["method"])


def read_rows(path: Path) -> dict[tuple, dict[str, object]]:
    """The measured rows of an earlier run by what determines them; none where there is no such file."""
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    return {tuple(row[c] for c in ("images", "noise", "method", "guarantee", "seeds")): row for row in rows}


if __name__ == "__main__":
    main()
