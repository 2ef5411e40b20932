"""Where a certified denoiser beats total variation, and where it loses: a face, a texture and a building.

Run it with `python examples/plot_denoising.py`; one figure a noise level appears in the folder `denoising`.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import torch
from skimage.restoration import denoise_tv_chambolle

from stablenet import certify, pretrained
from stablenet.images.photographs import add_noise, as_image
from stablenet.images.quality import psnr

NOISE_LEVELS = {5 / 255: 0.5, 15 / 255: 0.7, 25 / 255: 0.8}
"""With the weight of total variation, in units of the noise level, that is best on classic test images."""
SCENES = {
    "face": ("astronaut", slice(0, 160), slice(150, 310)),
    "texture": ("grass", slice(100, 260), slice(100, 260)),
    "building": ("camera", slice(150, 310), slice(340, 500)),
}


def decibels(estimate: np.ndarray, clean: np.ndarray) -> float:
    return psnr(torch.from_numpy(estimate), torch.from_numpy(clean))


def panels(name: str, level: float, weight: float, denoiser: torch.nn.Module) -> dict[str, np.ndarray]:
    """Clean, noisy, total variation, ours and the two residuals, each (height, width)."""
    source, rows, columns = SCENES[name]
    clean = as_image(getattr(skimage.data, source)(), 1).float()[None, :, rows, columns] / 255
    noisy = add_noise(clean, level, torch.Generator().manual_seed(0))
    ours = denoiser(noisy, level)[0, 0].numpy()
    original, observed = clean[0, 0].numpy(), noisy[0, 0].numpy()
    tv = denoise_tv_chambolle(observed, weight=weight * level, eps=1e-5, max_num_iter=500)
    return {
        "clean": original,
        f"noisy, {decibels(observed, original):.2f} dB": observed,
        f"TV, {decibels(tv, original):.2f} dB": tv,
        f"certified, {decibels(ours, original):.2f} dB": ours,
        "removed by TV": observed - tv,
        "removed by ours": observed - ours,
    }


def main(folder: Path = Path("denoising")) -> None:
    denoiser = pretrained("denoiser-gray")
    certificate = certify(denoiser).certificate
    print(certificate)
    assert certificate.is_averaged
    folder.mkdir(exist_ok=True)
    wins = []
    for level, weight in NOISE_LEVELS.items():
        figure, axes = plt.subplots(len(SCENES), 6, figsize=(15, 7.9), layout="constrained")
        for row, name in zip(axes, SCENES, strict=True):
            pictures = panels(name, level, weight, denoiser)
            for axis, (title, picture) in zip(row, pictures.items(), strict=True):
                low, high = (-3 * level, 3 * level) if title.startswith("removed") else (0, 1)
                axis.imshow(picture, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
                axis.set_title(title, fontsize=10)
                axis.set(xticks=[], yticks=[])
            row[0].set_ylabel(name)
            clean, _, tv, ours, *_ = pictures.values()
            wins.append(decibels(ours, clean) - decibels(tv, clean))
            print(f"noise {255 * level:.0f}/255, {name}: {wins[-1]:+.2f} dB over total variation")
        figure.suptitle(f"noise of standard deviation {255 * level:.0f}/255; residuals from -3 to 3 standard deviations")
        figure.savefig(folder / f"noise-{255 * level:02.0f}.png", dpi=110)
        plt.close(figure)
    assert np.mean(wins) > 0.2


if __name__ == "__main__":
    main()
