"""Strips on several threads: the map of one thread, the same bits every time, and a caller that finds all as it was."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from stablenet.activations import LinearSpline
from stablenet.blocks import GradientFlow
from stablenet.linear import Conv2d, PolyphaseConv2d, strips
from stablenet.linear.spreading import one_thread_a_kernel, spread
from stablenet.networks import Denoiser, DenoiserArchitecture
from stablenet.spectral import UnboundedError

THREADS = 4


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    monkeypatch.setattr(strips, "STRIP_SIZE", 2000)
    yield
    assert torch.get_num_threads() == THREADS
    torch.set_num_threads(before)


class Recording(nn.Module):
    """An activation that notes which threads it runs on, with how many threads each, and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int, bool, bool, bool]] = []

    def forward(self, u: Tensor) -> Tensor:
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        self.seen.append((threading.get_ident(), torch.get_num_threads(), *modes))
        time.sleep(0.001)  # long enough for the others to take a strip
        return u.relu()


def strip_by_strip(function: nn.Module, x: Tensor) -> Tensor:
    kernel = torch.randn(6, x.shape[1], 3, 3, generator=torch.Generator().manual_seed(0))
    return strips.in_strips(x, kernel, None, function, padding=1)


def denoiser() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(DenoiserArchitecture(features=8, blocks=2)).eval()


def test_the_bits_do_not_depend_on_which_thread_ends_first():
    network, x = denoiser(), torch.rand(2, 1, 70, 41)
    with torch.no_grad():
        results = [network(x, 0.1) for _ in range(20)]
        torch.set_num_threads(1)
        alone = network(x, 0.1)
        torch.set_num_threads(THREADS)
    assert all(torch.equal(result, alone) for result in results)
    torch.testing.assert_close(alone, network(x, 0.1).detach())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_strips_run_on_several_threads_in_the_mode_of_the_caller(mode):
    recording, x = Recording(), torch.randn(1, 2, 400, 20)
    with mode():
        strip_by_strip(recording, x)
    identities, counts, gradients, inference, autocast = zip(*recording.seen, strict=True)
    assert len(set(identities)) > 1
    assert set(counts) == {1}
    assert not any(gradients) and set(inference) == {mode is torch.inference_mode} and not any(autocast)


def test_autocast_reaches_the_strips():
    recording, x = Recording(), torch.randn(1, 2, 400, 20)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        strip_by_strip(recording, x)
    assert all(autocast for *_, autocast in recording.seen)


def test_new_threads_of_the_caller_keep_its_number():
    strip_by_strip(nn.ReLU(), torch.randn(1, 2, 100, 20))
    numbers: list[int] = []
    thread = threading.Thread(target=lambda: numbers.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert numbers == [THREADS]


def test_callers_on_several_threads():
    network, x = denoiser(), torch.rand(1, 1, 40, 40)
    results: list[Tensor] = []

    def call() -> None:
        torch.set_num_threads(THREADS)
        with torch.no_grad():
            results.append(network(x, 0.1))

    callers = [threading.Thread(target=call) for _ in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(results) == 5 and all(torch.equal(result, results[0]) for result in results)


def test_an_exception_ends_the_work_and_is_raised():
    begun: list[int] = []

    def work(piece: int) -> None:
        begun.append(piece)
        time.sleep(0.001)
        if piece == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        spread(work, 10**6)
    assert len(begun) < 100
    done: list[int] = []
    spread(done.append, 50)
    assert sorted(done) == list(range(50))


def test_spreading_within_a_piece_stays_on_its_thread():
    seen: set[tuple[int, int]] = set()

    def work(piece: int) -> None:
        here = threading.get_ident()
        spread(lambda _: seen.add((here, threading.get_ident())), 8)

    spread(work, 16)
    assert all(outer == inner for outer, inner in seen if outer != threading.get_ident())


def test_transforms_and_counters_see_every_strip():
    from torch.utils.flop_counter import FlopCounterMode

    network, x = denoiser(), torch.rand(3, 1, 60, 30)
    with torch.no_grad():
        derivatives = []
        for number in (1, THREADS):
            torch.set_num_threads(number)
            derivatives.append(torch.func.jvp(lambda x: strip_by_strip(nn.ReLU(), x), (x,), (x,))[1])
        assert torch.equal(*derivatives) and float(derivatives[0].norm()) > 0
        counts = []
        for number in (1, THREADS):
            torch.set_num_threads(number)
            with FlopCounterMode(display=False) as counter:
                network(x, 0.1)
            counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_threads_of_its_own():
    x = torch.randn(1, 2, 100, 20)
    strip_by_strip(nn.ReLU(), x)
    child = multiprocessing.get_context("fork").Process(target=lambda: strip_by_strip(nn.ReLU(), x))
    child.start()
    child.join(30)
    assert child.exitcode == 0


INTERRUPTED = """
import signal, time, torch
from torch import nn
from stablenet.linear import strips
torch.set_num_threads(3)
strips.STRIP_SIZE = 1
class Slow(nn.Module):
    def forward(self, u):
        time.sleep(0.02)
        return u
signal.setitimer(signal.ITIMER_REAL, 0.3)
signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
try:
    strips.in_strips(torch.randn(1, 1, 4000, 8), torch.randn(1, 1, 3, 3), None, Slow(), padding=1)
except KeyboardInterrupt:
    print("interrupted", torch.get_num_threads())
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer on this system")
def test_an_interrupt_leaves_at_once():
    """The whole work would take 13 seconds on three threads; the interpreter must also end, its pool with it."""
    result = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["interrupted", "3"], result.stderr


def test_progress_ends_at_all_rows_and_never_goes_back(monkeypatch):
    monkeypatch.setattr(strips, "STRIP_SIZE", 1)
    reports: list[tuple[int, int]] = []
    network, x = denoiser(), torch.rand(1, 1, 200, 30)
    with torch.no_grad(), strips.progress(lambda done, rows: reports.append((done, rows))):
        network(x, 0.1)
    ends = [i for i, (done, rows) in enumerate(reports) if done == rows]
    assert len(ends) == 2 and ends[-1] == len(reports) - 1  # one map a block
    for begin, end in zip([0, ends[0] + 1], ends, strict=True):
        done = [d for d, _ in reports[begin : end + 1]]
        assert done == sorted(done) and len(done) > 2
    with torch.no_grad():
        network(x, 0.1)
    assert ends[-1] == len(reports) - 1


def test_one_thread_a_kernel_nests_and_restores_after_an_exception():
    with pytest.raises(ZeroDivisionError), one_thread_a_kernel():
        with one_thread_a_kernel():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == THREADS


@pytest.mark.parametrize("shape", [(4, 2, 1, 15), (4, 2, 15, 1), (4, 2, 5, 5), (4, 2, 2, 2)])
@pytest.mark.parametrize("side", [9, 32, 100])
def test_a_weight_of_another_shape_is_the_same_map_by_strips(shape, side):
    """The padding belongs to the map: from the shape of the kernel, strips counted rows twice."""
    weight = torch.randn(shape, dtype=torch.float64)
    x = torch.randn(1, 2, max(side, 16), max(side, 16), dtype=torch.float64)
    found = strips.in_strips(x, weight, None, torch.relu, padding=1)
    inner = nn.functional.conv2d(x, weight, padding=1)
    torch.testing.assert_close(found, nn.functional.conv_transpose2d(inner.relu(), weight, padding=1), rtol=1e-12, atol=1e-12)


def test_a_block_refuses_a_weight_of_another_shape():
    block = GradientFlow(Conv2d(2, 4, 3), LinearSpline(4, segments=3)).eval()
    block.linear.weight = nn.Parameter(torch.randn(4, 2, 1, 15))
    with torch.no_grad(), pytest.raises(UnboundedError, match="shape"):
        block(torch.randn(1, 2, 32, 32))


def test_a_polyphase_block_by_threads_is_the_block():
    block = GradientFlow(PolyphaseConv2d(1, 3, 7), LinearSpline(3, segments=3)).double().eval()
    x = torch.randn(2, 4, 60, 31, dtype=torch.float64)
    with torch.no_grad():
        restored = block(x)
    torch.testing.assert_close(restored, block(x).detach(), rtol=1e-12, atol=1e-12)
