"""Which arithmetic to train in: bfloat16 where the processor multiplies it, float32 elsewhere.

Source: without AVX512-BF16 or AMX a CPU emulates bfloat16, and convolutions take 100 times as long; GPUs have it from
compute capability 8.0 on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

PRECISIONS = ("auto", "32-true", "bf16-mixed")
CPU_FLAGS = ("avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Precision:
    """What convolutions compute in, and why.

    name : 32-true, or bf16-mixed: convolutions in bf16, images and weights kept in float32.
    """

    name: str
    reason: str

    @property
    def half(self) -> bool:
        """Whether convolutions run in bfloat16."""
        return self.name == "bf16-mixed"

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def check_precision(name: str) -> None:
    """Raises ValueError for what is no precision."""
    if name not in PRECISIONS:
        raise ValueError(f"precision must be {', '.join(map(repr, PRECISIONS[:-1]))} or {PRECISIONS[-1]!r}, got {name!r}")


def settle(name: str, device: torch.device) -> Precision:
    """The precision that `name` stands for on a device: "auto" takes bf16-mixed only where it pays."""
    fast, reason = _multiplies_bf16(device)
    if name == "auto":
        return Precision("bf16-mixed" if fast else "32-true", reason)
    slow = name == "bf16-mixed" and not fast
    return Precision(name, f"as asked for; slow here, since {reason}: 32-true is faster" if slow else "as asked for")


def _multiplies_bf16(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return capability >= (8, 0), f"the GPU has compute capability {'.'.join(map(str, capability))}"
    if device.type != "cpu":
        return False, f"nothing is known of bfloat16 on {device.type}"
    found = sorted(cpu_flags() & set(CPU_FLAGS))
    if found and onednn_has_bf16():
        return True, f"the processor has {found[-1]}"
    return False, f"the processor has neither {' nor '.join(CPU_FLAGS)}"


def onednn_has_bf16() -> bool:
    """Whether torch's convolutions can run in bfloat16 on this processor."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What the processor can do, as Linux lists it; empty elsewhere."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())
