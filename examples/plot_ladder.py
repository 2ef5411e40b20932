"""The ladder: one photograph deblurred on each rung, what each rung costs, and the theorem under which it ran.

Run it with `python examples/plot_ladder.py`; the figure appears as ladder/ladder.png. Another photograph, of which the
middle is taken: `--image PATH`. Every number and every theorem in the figure is what the run itself returned.
"""

import argparse
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

import pnp
from pnp import kernels
from pnp.guarantees import Guarantee
from pnp.scenes.blur import simulate
from pnp.scenes.scene import Scene
from stablenet.bundled import available, data_path
from stablenet.files import aside
from stablenet.images.photographs import as_bytes
from stablenet.images.quality import psnr
from stablenet.images.reading import read_image
from stablenet.weights import pretrained

NOISE_LEVEL, TOLERANCE, SIDE = 0.03, 3e-5, 256
ZOOMS = {"hair and skin": (28, 78), "tower and sky": (56, 188), "tripod and grass": (178, 112), "shoulder and sky": (52, 14)}
"""Row and column, in the part shown, of details of ZOOM pixels."""
ZOOM = 60
START = "a circular motion blur and Gaussian noise;\nevery run starts here"
COLORS = ("C1", "C2", "C3", "C4")
Solve = Callable[[Scene, nn.Module], pnp.Solution]


def descend(scene: Scene, network: nn.Module) -> pnp.Solution:
    return pnp.solve(
        pnp.Descent(), scene.measurement, scene.physics, network, noise_level=NOISE_LEVEL, stop=pnp.Stop(TOLERANCE, 1500)
    )


def average(scene: Scene, network: nn.Module) -> pnp.Solution:
    return pnp.solve(
        pnp.PGD(),
        scene.measurement,
        scene.physics,
        pnp.Clipped(network),
        noise_level=NOISE_LEVEL,
        scheme=pnp.Anderson(),
        stop=pnp.Stop(TOLERANCE, 1500),
    )


def guide(scene: Scene, network: nn.Module) -> pnp.Solution:
    return pnp.solve_guided(
        pnp.Descent(),
        scene.measurement,
        scene.physics,
        network,
        noise_level=NOISE_LEVEL,
        refreshes=2,
        clipped=False,
        stop=pnp.Stop(TOLERANCE, 1500),
    )


RUNGS: dict[str, tuple[str, Solve]] = {
    "convex": ("ridge-convex-gray", descend),
    "averaged": ("denoiser-gray-small", average),
    "guided": ("deblurring-gray-guided", guide),
    "weakly convex": ("ridge-gray", descend),
}
"""From the strictest promise to the mildest, with the shipped weights of each."""


def part(path: Path | None) -> Tensor:
    """(1, 1, SIDE, SIDE): the middle of a photograph, the bundled one if none is given, made gray."""
    pixels = as_bytes(read_image(data_path("images/camera.png") if path is None else path), 1)[None].float() / 255
    top, left = ((side - SIDE) // 2 for side in pixels.shape[-2:])
    return pixels[..., top : top + SIDE, left : left + SIDE].contiguous()


def told(guarantee: Guarantee, width: int) -> str:
    """The theorem, its assumptions and what it gives up, in the guarantee's own words."""
    texts = [guarantee.theorem, *(f"assuming {text}" for text in guarantee.assumptions)]
    texts += [f"given up: {guarantee.gives_up}"] if guarantee.gives_up else []
    return "\n".join(textwrap.fill(text, width) for text in texts)


def draw(path: Path, columns: list[tuple[str, Tensor, str]]) -> None:
    """Each column from above: title, image, its details in the colors of their frames, words; lengths in inches."""
    wide, half, gap, words_high, title_high = 2.7, 1.32, 0.06, 1.75, 0.5
    width, height = len(columns) * (wide + 3 * gap), title_high + wide + 2 * (half + gap) + words_high
    figure = Figure(figsize=(width, height))

    def place(left: float, top: float, wide: float, high: float) -> Axes:
        return figure.add_axes((left / width, 1 - (top + high) / height, wide / width, high / height))

    for k, (title, image, words) in enumerate(columns):
        left, top = k * (wide + 3 * gap) + gap, title_high
        axis = place(left, top, wide, wide)
        _show(axis, image)
        axis.set_title(title, fontsize=11)
        for index, ((row, column), color) in enumerate(zip(ZOOMS.values(), COLORS, strict=True)):
            axis.add_patch(Rectangle((column, row), ZOOM, ZOOM, fill=False, edgecolor=color, linewidth=1.2))
            down, right = divmod(index, 2)
            zoom = place(left + right * (half + gap), top + wide + gap + down * (half + gap), half, half)
            _show(zoom, image[..., row : row + ZOOM, column : column + ZOOM])
            for spine in zoom.spines.values():
                spine.set(edgecolor=color, linewidth=2)
        under = 1 - (height - words_high + 2 * gap) / height
        figure.text(left / width, under, words, fontsize=7.5, va="top")
    with aside(path) as partial:
        figure.savefig(partial, dpi=110, format="png")


def _show(axis: Axes, image: Tensor) -> None:
    axis.imshow(image[0, 0].clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def main(folder: Path = Path("ladder"), photograph: Path | None = None) -> None:
    sharp = part(photograph)
    scene = simulate(sharp, kernels.motion(), noise_level=NOISE_LEVEL, boundary="circular", seed=0)
    before = psnr(scene.measurement, sharp)
    details = "\n".join(("framed, line by line:", *ZOOMS))
    columns = [("original", sharp, details), (f"blurred, noise {NOISE_LEVEL}\n{before:.2f} dB", scene.measurement, START)]
    for rung, (weights, solve) in RUNGS.items():
        if weights not in available():
            print(f"the rung {rung} is left out: {weights} is not bundled")
            continue
        network, began = pretrained(weights), time.perf_counter()
        solution = solve(scene, network)
        seconds, after = time.perf_counter() - began, psnr(solution.estimate, sharp)
        assert solution.converged and after > before + 3
        print(f"{rung}: {after:.2f} dB, {seconds:.1f} s\n{solution.guarantee}\n")
        columns.append((f"{rung}\n{after:.2f} dB, {seconds:.1f} s", solution.estimate, told(solution.guarantee, 44)))
    folder.mkdir(parents=True, exist_ok=True)
    draw(folder / "ladder.png", columns)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, help="a photograph of at least 256 x 256 pixels")
    parser.add_argument("--output", type=Path, default=Path("ladder"))
    a = parser.parse_args()
    main(a.output, a.image)
