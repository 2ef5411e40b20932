"""Claim: the certified bound of a convolution is within 1 % of the truth, and no peer's figure is both safe and as tight.

Run: python benchmarks/norms.py. The truth is bracketed by all singular values of the symbol on a grid of n points an axis: from
below by the largest, from above by the largest over cos(pi (k - 1) / (2 n)) an axis (docs/theorems.md, N1), with n so large
that less than 0.1 % is between them. A figure is safe from the upper end on, unsafe below the lower one, undecided between.
Peers: power iteration (this package's lower_bound), torch's spectral_norm (the norm of the flattened kernel),
orthogonium's Gram iteration where it is installed (extra `benchmarks`), SVD at every frequency of an image.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from report import seconds, write
from torch import nn

from stablenet import pretrained, spectral
from stablenet.spectral import symbols

COUNT = itertools.count(1)
HERE = Path(__file__).parent / "results"


def kernels() -> dict[str, nn.Module]:
    """Layers of the kinds that certified networks are made of."""
    torch.manual_seed(0)
    near_identity = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(near_identity.weight)
        near_identity.weight.add_(0.01 * torch.randn_like(near_identity.weight))
    trained = nn.Conv2d(1, 48, 7, padding=3, bias=False)
    trained.weight.data.copy_(pretrained("denoiser-gray-small").blocks[0].linear.weight)
    return {
        "random 64x64x3x3": nn.Conv2d(64, 64, 3, padding=1, bias=False),
        "identity + noise 64x64x3x3": near_identity,
        "trained 48x1x7x7": trained,
        "random 64x3x3x3 stride 2": nn.Conv2d(3, 64, 3, padding=1, stride=2, bias=False),
        "random 64x64x3x3 groups 4": nn.Conv2d(64, 64, 3, padding=1, groups=4, bias=False),
    }


@dataclass(frozen=True)
class Truth:
    """lower <= the norm of a layer on images of any size <= upper."""

    lower: float
    upper: float

    def says(self, value: float) -> str:
        """Whether a figure is not below the truth."""
        return "yes" if value >= self.upper else "NO" if value < self.lower else "undecided"


def truth(conv: nn.Conv2d) -> Truth:
    """The norm between the largest singular value on a grid and what it can be between the points of the grid."""
    taps = max(symbols.polyphase(conv.weight.detach(), conv.stride).shape[2:])
    points = 128
    while 1 / math.cos(math.pi * (taps - 1) / (2 * points)) ** 2 > 1.001:
        points *= 2
    lower = largest_on_grid(conv, points) * (1 - 1e-9)  # the rounding of eigvalsh and of the transform
    return Truth(lower, lower * (1 + 3e-9) / math.cos(math.pi * (taps - 1) / (2 * points)) ** 2)


def largest_on_grid(conv: nn.Conv2d, points: int) -> float:
    """The largest singular value of the symbol on a grid, by all eigenvalues of every group's Gram matrix, in float64."""
    largest = 0.0
    for part in conv.weight.detach().double().chunk(conv.groups):
        part = symbols.polyphase(part, conv.stride)
        symbol = torch.fft.rfft2(part, (points, points)).permute(2, 3, 0, 1).reshape(-1, *part.shape[:2])
        gram = symbol @ symbol.mH if symbol.shape[1] <= symbol.shape[2] else symbol.mH @ symbol
        largest = max(largest, math.sqrt(max(float(torch.linalg.eigvalsh(g).max()) for g in gram.split(512))))
    return largest


def certified(conv: nn.Conv2d) -> float:
    """Our bound of a kernel longer by some 1e-7: the bound of the same bytes would be remembered from the last time."""
    fresh = copy.deepcopy(conv)
    fresh.weight.data.mul_(1 + 2e-7 * next(COUNT))
    return spectral.upper_bound(fresh)


def torch_claim(conv: nn.Conv2d) -> float:
    """What torch's spectral_norm takes for the norm: that of the kernel flattened to a matrix."""
    return float(torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2))


def image_svd(conv: nn.Conv2d) -> float:
    """Full SVD at every frequency of a 32 x 32 periodic image."""
    return largest_on_grid(conv, 32)


def methods() -> dict[str, object]:
    table = {
        "ours (certified)": certified,
        "power iteration, 32x32 image": lambda conv: spectral.lower_bound(conv, tolerance=1e-3, max_iterations=20),
        "torch spectral_norm (flattened)": torch_claim,
        "SVD at every frequency, 32x32": image_svd,
    }
    try:
        from orthogonium.layers.conv.singular_values import get_conv_sv

        table["orthogonium get_conv_sv"] = lambda conv: float(get_conv_sv(conv, n_iter=3, return_stab_rank=False))
    except ImportError:
        warnings.warn("orthogonium is not installed: pip install '.[benchmarks]' adds it to the table", stacklevel=2)
    return table


def main() -> None:
    rows = []
    for name, conv in kernels().items():
        bracket = truth(conv)
        ours = seconds(lambda conv=conv: certified(conv))
        for method, function in methods().items():
            try:
                start = time.perf_counter()
                value = function(conv)
                took = time.perf_counter() - start
                if took < 1:
                    took = seconds(lambda function=function, conv=conv: function(conv), repeats=3)
            except Exception as error:  # noqa: BLE001 - a peer that fails leaves the others their rows
                print(f"{method} fails on {name}: {type(error).__name__}")
                continue
            rows.append(_row(name, method, value, bracket, took, took / ours))
    write("norms", rows, HERE)


def _row(kernel: str, method: str, value: float, truth: Truth, took: float, relative: float) -> dict[str, object]:
    return {
        "kernel": kernel,
        "method": method,
        "value / truth, at least": value / truth.upper,
        "value / truth, at most": value / truth.lower,
        "not below the truth": truth.says(value),
        "seconds": took,
        "time / ours": relative,
    }


if __name__ == "__main__":
    main()
