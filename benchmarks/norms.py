"""Claim: the certified bound of a convolution is within 1 % of the truth, and no peer's figure is both safe and as tight.

Run: python benchmarks/norms.py. The truth is bracketed from below by a full SVD of the symbol on a 64-point grid.
Peers: power iteration (this package's lower_bound), torch's spectral_norm (the norm of the flattened kernel),
orthogonium's Gram iteration where it is installed (extra `benchmarks`), SVD at every frequency of an image.
"""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path

import torch
from report import seconds, write
from torch import nn

from stablenet import pretrained, spectral
from stablenet.spectral import symbols

HERE = Path(__file__).parent / "results"


def kernels() -> dict[str, nn.Module]:
    """Layers of the kinds that certified networks are made of."""
    torch.manual_seed(0)
    near_identity = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(near_identity.weight)
        near_identity.weight.add_(0.01 * torch.randn_like(near_identity.weight))
    trained = nn.Conv2d(1, 48, 7, padding=3, bias=False)
    trained.weight.data.copy_(pretrained("denoiser-gray").blocks[0].linear.weight)
    return {
        "random 64x64x3x3": nn.Conv2d(64, 64, 3, padding=1, bias=False),
        "identity + noise 64x64x3x3": near_identity,
        "trained 48x1x7x7": trained,
        "random 64x3x3x3 stride 2": nn.Conv2d(3, 64, 3, padding=1, stride=2, bias=False),
        "random 64x64x3x3 groups 4": nn.Conv2d(64, 64, 3, padding=1, groups=4, bias=False),
    }


def truth_from_below(conv: nn.Conv2d, points: int = 64) -> float:
    """The largest singular value of the symbol on a fine grid, by SVD of every group: at most the norm of the layer."""
    largest = 0.0
    for part in conv.weight.detach().double().chunk(conv.groups):
        part = symbols.polyphase(part, conv.stride)
        symbol = torch.fft.rfft2(part, (points, points)).permute(2, 3, 0, 1).reshape(-1, *part.shape[:2])
        gram = symbol @ symbol.mH if symbol.shape[1] <= symbol.shape[2] else symbol.mH @ symbol
        largest = max(largest, math.sqrt(max(float(torch.linalg.eigvalsh(g).max()) for g in gram.split(512))))
    return largest


def torch_claim(conv: nn.Conv2d) -> float:
    """What torch's spectral_norm takes for the norm: that of the kernel flattened to a matrix."""
    return float(torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2))


def image_svd(conv: nn.Conv2d) -> float:
    """Full SVD at every frequency of a 32 x 32 periodic image."""
    return truth_from_below(conv, 32)


def methods() -> dict[str, object]:
    table = {
        "ours (certified)": spectral.upper_bound,
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
        truth = truth_from_below(conv)
        ours = seconds(lambda conv=conv: spectral.upper_bound(conv))
        for method, function in methods().items():
            try:
                start = time.perf_counter()
                value = function(conv)
                took = time.perf_counter() - start
                if took < 1:
                    took = seconds(lambda function=function, conv=conv: function(conv), repeats=3)
            except Exception as error:  # noqa: BLE001 - a peer that fails is a row too
                rows.append(_row(name, method, f"fails: {type(error).__name__}", "", "", ""))
                continue
            rows.append(_row(name, method, value / truth, "yes" if value >= truth else "NO", took, took / ours))
    write("norms", rows, HERE)


def _row(kernel: str, method: str, ratio: object, safe: str, took: object, relative: object) -> dict[str, object]:
    return {
        "kernel": kernel,
        "method": method,
        "value / truth": ratio,
        "not below the truth": safe,
        "seconds": took,
        "time / ours": relative,
    }


if __name__ == "__main__":
    main()
