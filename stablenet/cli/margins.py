"""`stablenet margins`: noisy 2-XOR, a weakly regularized network beside the separator of its tangent kernel."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stablenet.files import aside, lock

if TYPE_CHECKING:
    from stablenet.training.sample_complexity import Outcome

TABLE, FIGURE = "margins.json", "margins.png"


@dataclass(frozen=True)
class Margins:
    """Train a small network and the separator of its tangent kernel on noisy 2-XOR; print and plot accuracy and margin.

    A run that was stopped goes on where it was, in the same --output with the same settings.
    """

    dimensions: tuple[int, ...] = (20, 40)
    ratios: tuple[float, ...] = (1, 2, 5, 10, 20, 40)
    """Numbers of points, in multiples of the dimension."""
    seeds: int = 5
    """How many: mean, worst and best are printed."""
    width: int = 200
    steps: int = 2000
    """Of Adam, on all points at once."""
    learning_rate: float = 1e-2
    decay: float = 1e-4
    """lambda of mean log(1 + exp(-y f)) + lambda |theta|^2."""
    start: float = 0.1
    """What the usual deviations of the weights at the start are multiplied by."""
    perturb: bool = False
    """Draw the 2 % weakest neurons anew every 50 steps of the first half."""
    lazy: bool = False
    """Train a network without decay from a large start besides, whose neurons hardly turn."""
    tested: int = 5000
    """Fresh points that the accuracy is of."""
    output: Path = field(default=Path("margins"))
    """Where margins.json and margins.png go."""

    def run(self) -> None:
        """Print one line a model, dimension and number of points.

        Raises
        ------
        ValueError : a number out of range, an output that holds a study of other settings.
        """
        from stablenet.convex.toys import noisy_xor
        from stablenet.training.perturbed import Perturbation
        from stablenet.training.sample_complexity import Training, compare, draw_accuracies

        drawn = Perturbation() if self.perturb else None
        training = Training(self.width, self.steps, self.learning_rate, self.decay, self.start, drawn)
        wanted = self._wanted()
        with lock(self.output):
            outcomes = self._found()
            known = {(o.dimension, o.points, o.seed) for o in outcomes}
            for d, n, seed in wanted:
                if (d, n, seed) not in known:
                    outcomes += list(compare(noisy_xor, d, n, seed, training, lazy=self.lazy, tested=self.tested))
                    self._keep(outcomes)
            outcomes = [o for o in outcomes if (o.dimension, o.points, o.seed) in wanted]
            draw_accuracies(outcomes, self.output / FIGURE)
        _print(outcomes)
        print(f"wrote {TABLE} and {FIGURE} to {self.output}")

    def _wanted(self) -> list[tuple[int, int, int]]:
        """Dimension, points and seed of every draw, small ones first; what is out of range is refused before any is made."""
        if self.seeds < 1 or self.tested < 1 or not self.dimensions or not self.ratios:
            raise ValueError(
                "seeds and tested must be at least 1, a dimension and a ratio are needed; got "
                f"{self.seeds}, {self.tested}, {self.dimensions} and {self.ratios}"
            )
        if min(self.dimensions) < 3 or not all(0 < d * ratio <= 10_000 for d in self.dimensions for ratio in self.ratios):
            raise ValueError(
                "dimensions must be at least 3 and dimension times ratio in (0, 10000], got "
                f"{self.dimensions} and {self.ratios}"
            )
        points = {(d, max(2, round(d * ratio))) for d in self.dimensions for ratio in self.ratios}
        return [(d, n, seed) for d, n in sorted(points, key=lambda p: (p[1], p[0])) for seed in range(self.seeds)]

    def _settings(self) -> dict[str, object]:
        """What outcomes depend on, but for the draws."""
        names = ("width", "steps", "learning_rate", "decay", "start", "perturb", "lazy", "tested")
        return {name: getattr(self, name) for name in names}

    def _found(self) -> list[Outcome]:
        """Outcomes of an earlier run in the same folder."""
        from stablenet.training.sample_complexity import Outcome

        path = self.output / TABLE
        if not path.exists():
            return []
        try:
            held = json.loads(path.read_text())
            outcomes, settings = [Outcome(**row) for row in held["outcomes"]], held["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no table of this command ({error}): remove it or choose another --output") from None
        if settings != self._settings():
            changed = [name for name, value in self._settings().items() if settings.get(name) != value]
            raise ValueError(f"{path} was made with another {', '.join(changed)}: choose another --output")
        return outcomes

    def _keep(self, outcomes: list[Outcome]) -> None:
        with aside(self.output / TABLE) as part:
            part.write_text(json.dumps({"settings": self._settings(), "outcomes": [asdict(o) for o in outcomes]}, indent=1))


def _print(outcomes: list[Outcome]) -> None:
    """Accuracy in %, mean over the seeds and from the worst to the best, and the mean margin."""
    from stablenet.training.sample_complexity import collected

    for model in dict.fromkeys(o.model for o in outcomes):
        for (d, n), row in collected(outcomes, model).items():
            shares = [100 * o.accuracy for o in row]
            margin = sum(o.margin for o in row) / len(row)
            print(
                f"d = {d}, n = {n}, {model}: {sum(shares) / len(shares):.1f} % ({min(shares):.1f} to {max(shares):.1f}), "
                f"margin {margin:.4f}"
            )
