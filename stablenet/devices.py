"""Where to compute, by name: cpu, cuda or cuda:1."""

from __future__ import annotations

import torch


def find_device(name: str) -> torch.device:
    """The device of that name.

    Raises
    ------
    ValueError : neither cpu nor cuda, or a GPU that torch does not find.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name} is not supported: choose cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name} is not there: torch {torch.__version__} finds {torch.cuda.device_count()} GPUs; use --device cpu"
        )
    return device
