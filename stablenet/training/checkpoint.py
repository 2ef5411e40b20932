"""Checkpoints without pickle: tensors in safetensors, scalars in its JSON header, written aside and then renamed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stablenet.files import aside
from stablenet.following import Following
from stablenet.training.fingerprint import Fingerprint

OF_BLOCKS = ("power_vector", "directions", "tracked_norm")
"""What blocks of the first version kept in their own buffers of the norm that is followed."""


@dataclass(frozen=True)
class Header:
    """How far a run has come, and what it may go on with.

    step : steps done. recipe : its JSON. data : the training images; None in checkpoints of the first version.
    learning_rates : (from step, learning rate) of each part of the run. losses : their sum and number since the last
    validation, and the last of them.
    """

    step: int
    recipe: str
    data: Fingerprint | None = None
    learning_rates: tuple[tuple[int, float], ...] = ()
    losses: tuple[float, int, float] = (0.0, 0, float("nan"))

    def to_metadata(self) -> dict[str, str]:
        """As safetensors keeps it."""
        written = {"step": str(self.step), "recipe": self.recipe, "losses": json.dumps(self.losses)}
        written["learning_rates"] = json.dumps(self.learning_rates)
        return written | ({} if self.data is None else {"data": self.data.to_json()})

    @staticmethod
    def from_metadata(metadata: Mapping[str, str]) -> Header:
        """From what safetensors kept."""
        rates = json.loads(metadata.get("learning_rates", "[]"))
        data = json.loads(metadata["data"]) if "data" in metadata else None
        total, count, last = json.loads(metadata.get("losses", "[0.0, 0, NaN]"))
        return Header(
            int(metadata["step"]),
            metadata["recipe"],
            None if data is None else Fingerprint(**data),
            tuple((int(step), float(rate)) for step, rate in rates),
            (total, count, last),
        )


@dataclass(frozen=True)
class State:
    """What moves in a run: the network, its running average, the norms that are followed, the optimizer."""

    model: nn.Module
    average: nn.Module
    following: Following
    optimizer: torch.optim.Optimizer

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by group and name."""
        found = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        found |= {f"average/{k}": v for k, v in self.average.state_dict().items()}
        found |= {f"following/{k}": v for k, v in self.following.tensors().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer/{index}/{k}": torch.as_tensor(v) for k, v in state.items()}
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` gave."""
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "following": {}, "optimizer": {}}
        for key, value in tensors.items():
            group, _, name = key.partition("/")
            if not name.endswith(OF_BLOCKS) or group == "following":
                groups[group][name] = value
        self.model.load_state_dict(groups["model"])
        self.average.load_state_dict(groups["average"])
        if groups["following"]:
            self.following.restore(groups["following"])
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in groups["optimizer"].items():
            index, _, name = key.partition("/")
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


def write_atomically(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file so that `path` holds the old bytes or the new, never half of either.

    Raises
    ------
    OSError : the disk is full, or the folder cannot be written to.
    """
    with aside(path) as temporary:
        copies = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}  # some modules hold a tensor twice
        try:
            save_file(copies, str(temporary), metadata=metadata)
        except SafetensorError as error:  # as which it reports what the system says
            raise OSError(f"cannot write {path.name}: {error}") from None


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


def read_header(path: Path) -> Header:
    """How far the run of a checkpoint has come.

    Raises
    ------
    ValueError : the file is unreadable or no checkpoint.
    """
    metadata = read(path)[1]
    try:
        return Header.from_metadata(metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no checkpoint of a training ({error!r}): use another output") from None
