"""`stablenet export`: a network as ONNX or a torch program that needs nothing of this package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from stablenet.cli.options import Common
from stablenet.devices import find_device


@dataclass(frozen=True)
class Export(Common):
    """Write a network as ONNX or a torch program that needs nothing else: of a classifier logits and certified radii come out,
    of a denoiser images."""

    output: tyro.conf.Positional[Path]
    """A path ending in .onnx or .pt2; a card, its name with .json at the end, goes beside it."""

    def run(self) -> None:
        """Write the program and its card."""
        if self.device != "cpu":
            find_device(self.device)
            raise ValueError(f"programs are written for the CPU, and run elsewhere when moved: drop --device {self.device}")
        from stablenet.export import card_path, write

        path = write(self.network(), self.output)
        outputs = json.loads(card_path(path).read_text())["outputs"]
        print(f"wrote {path} and {card_path(path).name}: outputs are {' and '.join(outputs)}")
