"""Products of a ridge potential in bfloat16 with their sweeps in C++: the values of `Level(half=True)`, five times as fast.

Source: docs/theorems.md, V1 to V3. For training, on processors with AVX512-BF16 and g++; what is shipped runs without.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from stablenet.linear.cells import product_matrix, taps
from stablenet.linear.mirrored import extended, extended_adjoint
from stablenet.networks import profiles

Operator = Callable[[Tensor], Tensor]


@cache
def library() -> ctypes.CDLL:
    """The sweeps, compiled for this processor.

    Raises
    ------
    RuntimeError : no g++, or a processor without AVX512-BF16.
    """
    folder = Path(tempfile.mkdtemp(prefix="fused-"))
    target, source = folder / "fused.so", Path(__file__).with_suffix(".cpp")
    # without -ffast-math, which would make this whole process flush subnormal numbers to zero
    command = ["g++", "-O3", "-march=native", "-shared", "-fPIC", str(source), "-o", str(target)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise RuntimeError(f"fused.cpp needs g++ and a processor with AVX512-BF16: {said.strip()[:300]}") from None
    return ctypes.CDLL(str(target))


def _call(name: str, *arguments: Tensor | int) -> None:
    """Tensors by address, rows and counts as they are; a status that is not 0 is an unknown number of segments."""
    given = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_long(a) for a in arguments]
    if getattr(library(), name)(*given) != 0:
        raise ValueError(f"{name} is compiled for 4 to 8 segments")


class Fused:
    """A potential at given noise levels, for images of even sides; features (cells, 4 pixels x 4 filters) in bfloat16.

    Parameters
    ----------
    bank : W (4 filters, channels, k, k), filters a multiple of 4. bends : (filters, segments). scales : (batch, filters).
    size : height and width, even.
    """

    def __init__(self, bank: Tensor, bends: Tensor, scales: Tensor, size: tuple[int, int]) -> None:
        self.size, self.q, self.outputs, self.channels = size, taps(bank.shape[-1]), len(bank), 4 * bank.shape[1]
        if self.outputs % 16 or size[0] % 2 or size[1] % 2:
            raise ValueError(f"features must be a multiple of 16 and sides even, got {self.outputs}, {size}")
        self.matrix = product_matrix(bank).bfloat16().contiguous()
        self.bends, self.scales = bends.repeat(4, 1).t().contiguous(), scales.repeat(1, 4).contiguous()
        self.knots = torch.tensor(profiles.knots(len(self.bends)))
        self.batch, self.rows, self.columns = len(scales), size[0] // 2, size[1] // 2
        reach = bank.shape[-1] // 2
        self.before, self.after = reach, (2 * (self.q - 1) - reach,) * 2
        cells = self.batch * self.rows * self.columns
        self.seen = torch.empty(cells, self.q * self.q * self.channels, dtype=torch.bfloat16)
        self.parts = torch.empty_like(self.seen)
        self.folded = torch.empty(self.batch, self.rows + self.q - 1, self.columns + self.q - 1, self.channels)

    def look(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """What the kernels see of x, less brightness."""
        seen = self.seen if seen is None else seen
        cells = functional.pixel_unshuffle(extended(x, self.before, self.after), 2).permute(0, 2, 3, 1).contiguous()
        _call("gather", cells, seen, self.batch, self.rows, self.columns, self.q, self.channels)
        return seen

    def features(self, x: Tensor) -> Tensor:
        """W x."""
        return self.look(x) @ self.matrix.T

    def adjoint(self, u: Tensor) -> Tensor:
        """W^T u."""
        torch.mm(u, self.matrix, out=self.parts)
        _call("fold", self.parts, self.folded, self.batch, self.rows, self.columns, self.q, self.channels)
        return extended_adjoint(
            functional.pixel_shuffle(self.folded.permute(0, 3, 1, 2), 2), self.size, self.before, self.after
        )

    def _levels(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.scales, self.bends, self.knots

    def _sizes(self) -> tuple[int, int, int, int]:
        return self.batch, 4 * self.rows * self.columns, self.outputs, len(self.knots)

    def gradient(self, x: Tensor) -> Tensor:
        """W^T s phi(W x/s)."""
        u = self.features(x)
        _call("gradient", u, *self._levels(), *self._sizes())
        return self.adjoint(u)

    def hessian(self, x: Tensor) -> Operator:
        """v -> W^T phi'(W x/s) W v."""
        u = self.features(x)
        slopes = torch.empty_like(u)
        _call("slope", u, slopes, *self._levels(), *self._sizes())
        return self.weighted(slopes)

    def reweighted(self, x: Tensor) -> Operator:
        """v -> W^T m W v with m = phi(u)/u at u = W x/s: the quadratic above R that touches it at x."""
        u = self.features(x)
        slopes, gradient = torch.empty_like(u), u.clone()
        _call("slope", u, slopes, *self._levels(), *self._sizes())
        _call("gradient", gradient, *self._levels(), *self._sizes())
        return self.weighted(torch.where(u.abs() > 1e-5, gradient / u, slopes).clamp_min_(0))

    def weighted(self, m: Tensor) -> Operator:
        """v -> W^T m W v."""

        def apply(v: Tensor) -> Tensor:
            u = self.features(v)
            _call("times", u, m, u.numel())
            return self.adjoint(u)

        return apply

    def pairing(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Derivatives of <v, grad R(x)> in the product matrix, bends (filters, segments) and scales (batch, filters)."""
        looks = [self.look(image, torch.empty_like(self.seen)) for image in (x, v)]
        u, w = (look @ self.matrix.T for look in looks)
        of_u, of_w, of_bends, of_scales = (torch.empty_like(t) for t in (u, w, self.bends, self.scales))
        _call("pairing", u, w, of_u, of_w, *self._levels(), of_bends, of_scales, *self._sizes())
        of_matrix = (of_u.T @ looks[0]).float() + (of_w.T @ looks[1]).float()
        filters = self.outputs // 4
        by_flip = of_bends.t().unflatten(0, (4, filters)).sum(0), of_scales.unflatten(1, (4, filters)).sum(1)
        return of_matrix, *by_flip
