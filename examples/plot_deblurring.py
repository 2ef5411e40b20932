"""A blurred, noisy photograph is restored by plug-and-play, and the residual stays below the bound of the theorem.

Run it with `python examples/plot_deblurring.py`; the two figures appear in the folder `deblurring`.
"""

from pathlib import Path

import pnp
from pnp import kernels
from pnp.report import figures
from pnp.scenes.blur import simulate
from stablenet.bundled import data_path
from stablenet.images.quality import psnr
from stablenet.images.reading import read_image
from stablenet.weights import pretrained

NOISE_LEVEL, TOLERANCE = 0.03, 1e-4


def main(folder: Path = Path("deblurring")) -> None:
    sharp = read_image(data_path("images/camera.png")).pixels
    kernel = kernels.motion()
    scene = simulate(sharp, kernel, noise_level=NOISE_LEVEL, boundary="circular", seed=0)
    denoiser = pretrained("denoiser-gray-small")

    solution = pnp.solve(pnp.PGD(), scene.measurement, scene.physics, denoiser, noise_level=NOISE_LEVEL, tolerance=TOLERANCE)
    print(solution.guarantee)

    before, after = psnr(scene.measurement, sharp), psnr(solution.estimate, sharp)
    print(f"{before:.2f} dB before, {after:.2f} dB after {solution.iterations} iterations")
    bound = solution.guarantee.residual_bound(float(solution.distance), solution.iterations - 1)
    assert solution.converged and float(solution.residuals[-1]) <= bound and after > before + 3

    folder.mkdir(exist_ok=True)
    panels = [
        ("original", sharp),
        (f"blurred and noisy, {before:.2f} dB", scene.measurement),
        (f"restored, {after:.2f} dB", solution.estimate),
    ]
    figures.comparison(folder / "comparison.png", panels, kernel=kernel)
    figures.residual_plot(
        folder / "residuals.png",
        solution.residuals,
        size=sharp.numel(),
        tolerance=TOLERANCE,
        guarantee=solution.guarantee,
        distance=solution.distance,
    )


if __name__ == "__main__":
    main()
