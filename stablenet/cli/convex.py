"""`stablenet convex fit`: a table in, a two- or three-layer ReLU network at its certified optimum out."""

from __future__ import annotations

import csv
import difflib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import tyro

from stablenet.convex import saving as saving  # so that what is saved here is loaded by every command
from stablenet.rounding import six_digits_up

if TYPE_CHECKING:
    from stablenet.convex import BetaSearchCV

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Features (n, d) with their names, and the target's column as text."""

    names: tuple[str, ...]
    features: Reals
    target: tuple[str, ...]


def read_table(path: Path, target: str) -> Table:
    """A CSV file with a header, all columns but the target's numbers.

    Raises
    ------
    ValueError : no such column, a row of another length, or a value that is no finite number: which, and in which row.
    OSError : no such file.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    if target not in header:
        near = difflib.get_close_matches(target, header, n=3, cutoff=0.4) or header[:10]
        raise ValueError(f"{path} has no column {target!r}: did you mean {', '.join(near) or 'another file'}?")
    if len(set(header)) < len(header) or len(header) < 2:
        raise ValueError(f"{path} needs at least one column beside {target!r}, and no name twice: {', '.join(header)}")
    place = header.index(target)
    features = np.empty((len(rows), len(header) - 1))
    for k, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"row {k + 1} of {path} has {len(row)} values, the header names {len(header)} columns")
        for j, (name, value) in enumerate((n, v) for n, v in zip(header, row, strict=True) if n != target):
            features[k, j] = _number(value, f"row {k + 1}, column {name!r}")
        if not row[place].strip():
            raise ValueError(f"row {k + 1} has no {target!r}: leave it out")
    return Table(tuple(n for n in header if n != target), features, tuple(row[place].strip() for row in rows))


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where} is {text!r}, no finite number: encode or drop that column, or leave that row out")
    return value


@dataclass(frozen=True)
class Fit:
    """Train a ReLU network on a table to its global optimum, and save it with its certificate.

    Features, and a target of numbers, are standardized before training; the saved network takes and gives them as they are in
    the file, features in the file's order.
    """

    data: tyro.conf.Positional[Path]
    """A CSV file with a header; all columns but the target's are numbers."""
    target: str
    """The column to predict."""
    task: Literal["auto", "regression", "classification"] = "auto"
    """auto: classes where the target is no number or has two values."""
    loss: Literal["logistic", "hinge", "squared_hinge", "squared"] = "logistic"
    """Of classes; numbers have the squared one. Summed over the rows."""
    beta: float | None = None
    """Of the penalty; none: the best of ten by cross-validation, along a warm-started path."""
    depth: Literal[2, 3] = 2
    width: int = 2
    """Of three layers, neurons in the first layer of a sub-network."""
    gates: Literal["all"] | int = 50
    """all activation patterns, for a certified gap, or how many to sample."""
    max_lipschitz: float | None = None
    """A bound of the Lipschitz constant between standardized features and targets."""
    intercept: bool = True
    """Neurons with biases."""
    folds: int = 5
    """Of cross-validation."""
    tolerance: float = 1e-6
    """The relative gap at which to stop."""
    seed: int = 0
    """Of the gates."""
    output: Path = field(default=Path("convex-network"))
    """The saved network: OUTPUT.safetensors, with its card OUTPUT.json."""

    def run(self) -> None:
        """Train, print one line a result, and save.

        Raises
        ------
        ValueError : a table or a setting that cannot be used.
        """
        from stablenet.convex import BetaSearchCV
        from stablenet.convex.scaling import unscaled
        from stablenet.weights import save

        table = read_table(self.data, self.target)
        if not 2 <= self.folds <= len(table.target):
            raise ValueError(f"folds must lie between 2 and the number of rows, {len(table.target)}, got {self.folds}")
        classes = self._classes(table)
        center, deviation = _moments(table.features)
        y, offset, factor = self._targets(table, classes)
        search = BetaSearchCV(self._model(classes), cv=self.folds)
        model, score, how = self._trained(search, (table.features - center) / deviation, y)
        network = unscaled(
            model.network_,
            center=torch.from_numpy(center),
            deviation=torch.from_numpy(deviation),
            offset=None if classes else torch.tensor([offset], dtype=torch.float64),
            factor=None if classes else torch.tensor([factor], dtype=torch.float64),
        )
        path = self.output.with_name(self.output.name.removesuffix(".safetensors") + ".safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        names = {"data": str(self.data), "target": self.target, "features": list(table.names), "classes": classes}
        found = {"objective": model.objective_, "lower_bound": model.lower_bound_, "beta": model.beta}
        tree = save(network, path, cross_validated=score, **names, **found)
        print(f"{len(y)} rows, {len(center)} features, {len(classes) or 'no'} classes, {how}")
        print(_gap(model))
        print(f"{'accuracy' if classes else 'R^2'} {score:.4f}, mean of {self.folds} folds")
        known = six_digits_up(model.lipschitz_), six_digits_up(tree.lipschitz)
        print(f"Lipschitz constant <= {known[0]} of standardized data, <= {known[1]} of these")
        print(f"wrote {path}, {len(network.hidden)} units")

    def _trained(self, search: BetaSearchCV, X: Reals, y: Any) -> tuple[Any, float, str]:
        """The estimator, its cross-validated score, and how beta was found."""
        from sklearn.model_selection import cross_val_score

        if self.beta is None:
            search.fit(X, y)
            how = f"beta {search.beta_:.4g}, the best of {len(search.betas_)}"
            return search.best_estimator_, search.best_score_, how
        score = float(cross_val_score(search.estimator, X, y, cv=self.folds).mean())
        return search.estimator.fit(X, y), score, f"beta {self.beta:.4g}"

    def _classes(self, table: Table) -> list[str]:
        """Their names, sorted; none for regression."""
        values = sorted(set(table.target))
        numbers = all(_is_number(v) for v in values)
        if self.task == "regression" and not numbers:
            word = next(v for v in values if not _is_number(v))
            raise ValueError(f"{self.target!r} holds {word!r}: take --task classification")
        return values if self.task == "classification" or (self.task == "auto" and (not numbers or len(values) == 2)) else []

    def _targets(self, table: Table, classes: list[str]) -> tuple[Any, float, float]:
        """What the estimator takes, with the mean and the deviation of numbers."""
        if classes:
            return np.array(table.target), 0.0, 1.0
        y = np.array([_number(v, f"column {self.target!r}") for v in table.target])
        offset, factor = _moments(y[:, None])
        return (y - offset[0]) / factor[0], float(offset[0]), float(factor[0])

    def _model(self, classes: list[str]) -> Any:
        from stablenet.convex import ConvexReLUClassifier, ConvexReLURegressor

        shared: dict[str, Any] = {
            "depth": self.depth,
            "width": self.width,
            "gates": self.gates,
            "max_lipschitz": self.max_lipschitz,
            "fit_intercept": self.intercept,
            "tol": self.tolerance,
            "random_state": self.seed,
        }
        beta = 0.1 if self.beta is None else self.beta
        return ConvexReLUClassifier(beta, loss=self.loss, **shared) if classes else ConvexReLURegressor(beta, **shared)


def _moments(values: Reals) -> tuple[Reals, Reals]:
    """Means and deviations by columns, 1 for constant ones."""
    deviation = values.std(0)
    return values.mean(0), np.where(deviation > 1e-12 * np.abs(values).max(0, initial=0.0), deviation, 1.0)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _gap(model: Any) -> str:
    """The objective and what is proved of it."""
    if model.gap_ is None:
        over = f"{model.program_gap_:.2e} over those that were"
        return f"objective {model.objective_:.8g}, gap not certified: not all gates were there; {over}"
    return f"objective {model.objective_:.8g}, certified gap {model.gap_:.2e} over all networks of this kind"


ACTIONS = {"fit": Fit}


def run_convex(arguments: Sequence[str]) -> None:
    """Parse and run `stablenet convex fit`."""
    if not arguments or arguments[0] not in ACTIONS:
        print("usage: stablenet convex fit DATA.csv --target COLUMN [--help]", file=sys.stderr)
        raise SystemExit(0 if list(arguments[:1]) in (["--help"], ["-h"]) else 2)
    name, *rest = arguments
    tyro.cli(ACTIONS[name], prog=f"stablenet convex {name}", args=rest).run()
