"""Figures show the kernel from its zero, leave matplotlib's backend alone, and appear whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pnp import kernels
from pnp.report.figures import comparison


def test_a_uniform_kernel_is_a_white_square_on_black(tmp_path: Path) -> None:
    gray = torch.full((1, 1, 40, 40), 0.5)
    comparison(tmp_path / "a.png", [("before", gray), ("after", gray)], kernel=kernels.uniform())
    drawn = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    before = drawn[60:, : drawn.shape[1] // 2]  # below the title
    inset = before[: before.shape[0] // 4, int(0.8 * before.shape[1]) : int(0.95 * before.shape[1])]
    assert (inset == 255).mean() > 0.5 and (inset == 0).mean() > 0.02


def test_importing_the_package_chooses_no_backend() -> None:
    code = "import matplotlib; matplotlib.use('svg'); import pnp.cli, pnp.report.figures, stablenet.images.reading; "
    code += "print(matplotlib.get_backend()); import sys; print('matplotlib.pyplot' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["svg", "False"]
