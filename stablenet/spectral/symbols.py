"""The symbol of a convolution, W(theta) = sum_j W_j exp(-i j theta): sampled on a grid, and its peak as a plane wave.

Source: docs/theorems.md, N1; the peak is a lower bound that training follows (E1) and certifies nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

CHUNK_BYTES = 256 * 2**20


@torch.no_grad()
def peak(kernel: Tensor) -> Tensor:
    """The plane wave (2, inputs, height, width), real and imaginary, that a stride-1 convolution amplifies most.

    kernel (outputs, inputs, height, width). Searched on a grid of at least four points a tap and axis, then on one four
    times as fine around the best point. Unlike a tracked vector it does not lag behind the weights.
    """
    points = 16 * math.ceil(max(*kernel.shape[2:], 8) / 4)
    symbol = torch.fft.rfft2(kernel, s=(points, points)).permute(2, 3, 0, 1).flatten(0, 1)
    place, _ = _strongest(symbol)
    spacing = 2 * math.pi / points
    offsets = torch.arange(-2, 3, device=kernel.device, dtype=kernel.dtype) / 4
    lines = [(offsets + index) * spacing for index in divmod(place, points // 2 + 1)]
    waves = []
    for line, size in zip(lines, kernel.shape[2:], strict=True):
        angles = line[:, None] * torch.arange(size, device=kernel.device, dtype=kernel.dtype)
        waves.append(torch.polar(torch.ones_like(angles), -angles))
    rows = torch.einsum("ochw,ah->aocw", kernel.to(waves[0].dtype), waves[0])
    place, vector = _strongest(torch.einsum("aocw,bw->aboc", rows, waves[1]).flatten(0, 1))
    row, column = divmod(place, 5)
    wave = vector[:, None, None] * waves[0][row][:, None] * waves[1][column]
    return torch.view_as_real(wave).movedim(-1, 0).contiguous()


def _strongest(symbols: Tensor) -> tuple[int, Tensor]:
    """Of matrices (places, outputs, inputs): the place of the largest singular value, and its right singular vector."""
    inputs = symbols.shape[2]
    if inputs == 1:
        return int(symbols.abs().square().sum((1, 2)).argmax()), symbols.new_ones(1)
    gram = symbols.mH @ symbols
    power = gram
    for _ in range(5):
        power = power @ power
        power = power / torch.linalg.vector_norm(power, dim=(1, 2), keepdim=True).clamp_min(1e-30)
    start = torch.linspace(1.0, 2.0, inputs, device=symbols.device).to(symbols.dtype)
    vectors = functional.normalize(power @ start, dim=1)
    place = int((gram @ vectors[..., None]).abs().square().sum((1, 2)).argmax())
    return place, vectors[place]


@torch.no_grad()
def follow(kernel: Tensor, directions: Tensor) -> tuple[float, Tensor, Tensor]:
    """One step of the power iteration at every frequency of `frequencies`: (the largest gain, its plane wave as in `peak`,
    the new directions). For many inputs, where `peak` is dear.

    kernel (outputs, inputs, height, width), directions (2, frequencies, inputs), real and imaginary, at first `start`.
    """
    inputs, taps = kernel.shape[1], tuple(kernel.shape[2:])
    cosine, sine = (wave.to(kernel)[:, None] for wave in frequencies(taps))
    real, imaginary = directions.to(kernel.dtype)[..., None]
    flat = kernel.flatten(1)
    # v exp(-i phase), the symbol's image of v as the kernel's of this wave, and back
    waves = torch.stack([real * cosine + imaginary * sine, imaginary * cosine - real * sine])
    images = waves.flatten(2) @ flat.T
    gains = images.square().sum((0, 2))
    place = int(gains.argmax())
    real, imaginary = (images @ flat).unflatten(2, (inputs, -1))
    moved = torch.stack([(real * cosine - imaginary * sine).sum(2), (imaginary * cosine + real * sine).sum(2)])
    moved = moved / torch.linalg.vector_norm(moved, dim=(0, 2), keepdim=True).clamp_min(1e-30)
    return math.sqrt(float(gains[place])), waves[:, place].unflatten(-1, taps), moved


@cache
def frequencies(taps: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cosine and sine (frequencies, height * width) of each tap's phase on half of a grid of 2 k + 1 points an axis."""
    points = [2 * k + 1 for k in taps]
    rows, columns = (torch.arange(n) * (2 * math.pi / n) for n in points)
    columns = columns[: points[1] // 2 + 1]
    row, column = torch.arange(taps[0]), torch.arange(taps[1])
    phase = rows[:, None, None, None] * row[:, None] + columns[:, None, None] * column
    phase = phase.flatten(2).flatten(0, 1)
    return torch.cos(phase), torch.sin(phase)


def start(kernel: Tensor, generator: torch.Generator) -> Tensor:
    """Unit directions (2, frequencies, inputs) to begin `follow` with."""
    count = len(frequencies(tuple(kernel.shape[2:]))[0])
    directions = torch.randn(2, count, kernel.shape[1], generator=generator)
    return directions / directions.norm(dim=(0, 2), keepdim=True)


def gain(kernel: Tensor, wave: Tensor) -> Tensor:
    """|A wave| of a convolution for a `peak`, differentiable: its norm up to the grid, from below."""
    return torch.einsum("ochw,pchw->op", kernel, wave).norm()


def polyphase(kernel: Tensor, strides: Sequence[int]) -> Tensor:
    """The stride-1 kernel over pixel-unshuffled input with the same norm as the strided convolution."""
    for axis, s in enumerate(strides, start=2):
        if s == 1:
            continue
        missing = -kernel.shape[axis] % s
        pad = [0, 0] * (kernel.ndim - 1 - axis) + [0, missing]
        kernel = functional.pad(kernel, pad).unflatten(axis, (-1, s)).movedim(axis + 1, 2).flatten(1, 2)
    return kernel


def grid_size(k: int, excess: float) -> int:
    """The smallest even N with 1/cos(pi (k - 1)/(2 N)) <= 1 + excess."""
    if k == 1:
        return 1
    n = math.ceil(math.pi * (k - 1) / (2 * math.acos(1 / (1 + excess))))
    return n + n % 2


def sampled(kernel: Tensor, points: Sequence[int]) -> Iterator[Tensor]:
    """Chunks (frequencies, out, in) of W(theta) = sum_j W_j exp(-i j theta), half of the grid (the rest is conjugate)."""
    sizes = [n // 2 + 1 if axis == 0 else n for axis, n in enumerate(points)]
    waves = []  # exp(-i j theta) an axis, (frequencies, taps)
    for m, n, k in zip(sizes, points, kernel.shape[2:], strict=True):
        angle = (-2 * math.pi / n) * torch.outer(torch.arange(m, dtype=torch.float64), torch.arange(k, dtype=torch.float64))
        waves.append(torch.polar(torch.ones_like(angle), angle))
    taps = kernel.movedim((0, 1), (-2, -1)).to(torch.complex128)[None]
    yield from _transformed(taps, waves)


def _transformed(part: Tensor, waves: Sequence[Tensor]) -> Iterator[Tensor]:
    """(frequencies, taps of each axis left, out, in) with the next axis transformed, in pieces of CHUNK_BYTES."""
    if not waves:
        yield part
        return
    room = max(1, CHUNK_BYTES // (16 * part[0, 0].numel()))
    for wave in waves[0].split(room):
        for piece in part.split(max(1, room // len(wave))):
            yield from _transformed(torch.einsum("nk,fk...->fn...", wave, piece).flatten(0, 1), waves[1:])
