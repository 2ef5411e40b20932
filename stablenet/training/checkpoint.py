"""Checkpoints without pickle: tensors in safetensors, scalars in its JSON header, written aside and then renamed."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stablenet.files import aside
from stablenet.following import Following


def write_atomically(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file so that `path` holds the old bytes or the new, never half of either."""
    with aside(path) as temporary:
        copies = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}  # some modules hold a tensor twice
        save_file(copies, str(temporary), metadata=metadata)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises
    ------
    ValueError : the file is missing, truncated or no safetensors file.
    """
    if not path.is_file():
        raise ValueError(f"no weights at {path}: give an existing .safetensors file")
    try:
        with safe_open(str(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): fetch or write it again") from None


def save_checkpoint(
    path: Path,
    step: int,
    model: nn.Module,
    average: nn.Module,
    following: Following,
    optimizer: torch.optim.Optimizer,
    recipe: str,
) -> None:
    """The whole state of a training run after `step` steps; `recipe` is its JSON, checked on resuming."""
    tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average/{k}": v for k, v in average.state_dict().items()}
    tensors |= {f"following/{k}": v for k, v in following.tensors().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{k}": torch.as_tensor(v) for k, v in state.items()}
    write_atomically(path, tensors, {"step": str(step), "recipe": recipe})


def load_checkpoint(
    path: Path, model: nn.Module, average: nn.Module, following: Following, optimizer: torch.optim.Optimizer, recipe: str
) -> int:
    """Restore a run and return the number of steps done.

    Raises
    ------
    ValueError : the file is unreadable or belongs to another recipe (the entries that differ are named).
    """
    tensors, metadata = read(path)
    if metadata.get("recipe") != recipe:
        theirs, ours = json.loads(metadata.get("recipe", "{}")), json.loads(recipe)
        changed = [k for k in ours if theirs.get(k) != ours[k]]
        raise ValueError(f"{path} was written under another recipe (different: {', '.join(changed)}): use another output")
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "following": {}, "optimizer": {}}
    for key, value in tensors.items():
        group, _, name = key.partition("/")
        groups[group][name] = value
    model.load_state_dict(groups["model"])
    average.load_state_dict(groups["average"])
    following.restore(groups["following"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in groups["optimizer"].items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"])
