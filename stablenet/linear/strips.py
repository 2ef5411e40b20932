"""A^T f(A x + b) of a convolution, a strip of rows at a time: the features are never held as a whole.

Source: the adjoint of a convolution is the transposed convolution (docs/theorems.md, N3).
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn import functional

from stablenet.linear.adjoints import folded, turned
from stablenet.linear.spreading import one_thread_a_kernel, spread

STRIP_SIZE = 2**19
"""Features of a strip in `in_strips`: a few of them fit a core's caches."""
SHARES = 8
"""The number of strips is a multiple of it where the rows allow, so that threads get equal parts."""

Progress = Callable[[int, int], None]
_progress: ContextVar[Progress | None] = ContextVar("progress by strips", default=None)


@contextlib.contextmanager
def progress(callback: Progress) -> Iterator[None]:
    """Within, `callback(rows done, rows in all)` is called on the calling thread as the strips of each map are done."""
    token = _progress.set(callback)
    try:
        yield
    finally:
        _progress.reset(token)


def in_strips(x: Tensor, kernel: Tensor, bias: Tensor | None, function: Callable[[Tensor], Tensor], *, padding: int) -> Tensor:
    """A^T f(A x + b), f elementwise, a strip of rows at a time: A x (tens of channels for one of x) is never held as a whole.

    x (batch, inputs, height, width); kernel (outputs, inputs, rows, columns) of a convolution with stride 1 and `padding`
    zeros around. Strips run on several threads; where they overlap they are added in their order, so that the result does
    not depend on which ends first.
    """
    with one_thread_a_kernel():
        wide = functional.pad(x, (0, 0, padding, padding)).contiguous(memory_format=torch.channels_last)
        taps, rows = kernel.shape[2], wide.shape[2] - kernel.shape[2] + 1
        back, columns = turned(kernel), kernel.shape[3]
        tops = _tops(rows, STRIP_SIZE // (len(x) * kernel.shape[0] * x.shape[3]))
        total = _Total(torch.zeros_like(wide), rows)

        def work(index: int) -> None:
            strip = slice(tops[index], min(tops[index + 1], rows) + taps - 1)
            features = function(functional.conv2d(wide[:, :, strip], kernel, bias, padding=(0, padding)))
            parts = functional.conv2d(features, back, padding=(taps - 1, 0))
            total.add(index, strip, folded(parts, columns, (0, padding)), taps - 1)

        spread(work, len(tops) - 1)
        total.report(rows)
    return total.result[:, :, padding : padding + x.shape[2]]


def _tops(rows: int, step: int) -> list[int]:
    """The first row of each strip of at most max(2, step) rows, and the end; the strips are equal up to one row or two."""
    count = math.ceil(rows / max(2, step))
    if count > 1:
        step = math.ceil(rows / (math.ceil(count / SHARES) * SHARES))
    return [*range(0, rows, max(2, step)), rows]


class _Total:
    """The sum of the strips: each is added when all before it are."""

    def __init__(self, result: Tensor, rows: int) -> None:
        self.result, self.rows, self.done, self.next = result, rows, 0, 0
        self.waiting: dict[int, tuple[slice, Tensor]] = {}
        self.lock, self.caller, self.callback = threading.Lock(), threading.get_ident(), _progress.get()

    def add(self, index: int, strip: slice, part: Tensor, overlap: int) -> None:
        with self.lock:
            self.waiting[index] = strip, part
            while self.next in self.waiting:
                strip, part = self.waiting.pop(self.next)
                self.result[:, :, strip] += part
                self.done, self.next = strip.stop - overlap, self.next + 1
            done = self.done
        if done < self.rows and threading.get_ident() == self.caller:
            self.report(done)

    def report(self, done: int) -> None:
        if self.callback is not None:
            self.callback(done, self.rows)
