"""A training run with progress shown: weights with their card are written at each validation, and once more at the end.

Source: a card says all that the weights came from: recipe, data, precision, every learning rate.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.progress import Progress
from torch import nn

from stablenet.training.checkpoint import read_header
from stablenet.training.loop import CHECKPOINT, StepReport
from stablenet.training.precision import settle
from stablenet.training.recipe import Recipe
from stablenet.weights import save

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Session:
    """A run about to go.

    target : of the weights. provenance : what the card tells beside the recipe of where the network comes from.
    measure : what is measured beside each validation.
    """

    steps: Iterator[tuple[StepReport, nn.Module]]
    target: Path
    recipe: Recipe
    provenance: dict[str, object]
    fabric: Fabric
    measure: Callable[[nn.Module], dict[str, object]] = lambda _: {}

    def run(self) -> Path:
        """Train to the end and return the path of the weights.

        Raises
        ------
        ValueError : bad images, or a checkpoint that this run cannot go on from.
        KeyboardInterrupt : saying which checkpoint is kept.
        """
        precision = settle(self.recipe.precision, self.fabric.device)
        try:
            with Progress() as progress:
                if self.fabric.is_global_zero:
                    progress.console.print(f"precision {precision}")
                bar = progress.add_task("training", total=self.recipe.schedule.steps)
                for report, average in self.steps:
                    progress.update(bar, completed=report.step, description=f"loss {report.loss:.4f}")
                    if report.validation and self.fabric.is_global_zero:
                        scores = ", ".join(f"{name} {value:.4g}" for name, value in report.validation.items())
                        progress.console.print(f"step {report.step}: {scores}")
                        self._write(report, average, precision.name)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._kept()) from None
        return self.target

    def _write(self, report: StepReport, average: nn.Module, precision: str) -> None:
        made = {"recipe": json.loads(self.recipe.to_json()), **self.provenance, "precision": precision}
        reached: dict[str, object] = {"steps": report.step, "validation": report.validation, "torch": torch.__version__}
        if len(report.learning_rates) > 1:
            reached["learning_rate_from_step"] = {str(step): rate for step, rate in report.learning_rates}
        save(average, self.target, **made, **reached, **self.measure(average))

    def _kept(self) -> str:
        path = self.target.parent / CHECKPOINT
        if not path.exists():
            return f"no checkpoint is in {path.parent} yet, the same command begins anew"
        return f"the checkpoint of step {read_header(path).step} in {path.parent} is kept, the same command continues from it"
