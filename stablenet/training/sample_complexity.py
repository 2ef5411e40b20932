"""A weakly regularized network of two layers beside the separator of its tangent kernel, on points whose number grows.

Source: [Wei2019]: on noisy 2-XOR the network needs O(d) points, the kernel of the order of d^2; docs/margins.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet import kernels
from stablenet.files import aside
from stablenet.robustness.margins import normalized_margin
from stablenet.robustness.separation import separate
from stablenet.training.perturbed import Perturbation, Perturbed

Draw = Callable[..., tuple[Tensor, Tensor]]
"""X (n, d) and y (n,) of `draw(n, d, generator=...)`."""
NETWORK, LAZY, KERNEL = "network", "lazy network", "tangent kernel"
LARGEST = 10_000
"""Points of which a kernel matrix is made: 800 MB."""
LAZY_START = 5.0
"""Of the network whose neurons hardly turn."""


@dataclass(frozen=True)
class Training:
    """How a network of two layers is trained: by Adam on all points at once, its rate falling as a cosine.

    decay : lambda of mean log(1 + exp(-y f)) + lambda |theta|^2.
    start : what the standard deviations 1/sqrt(d) and 1/sqrt(width) of both layers at the start are multiplied by.
    perturbation : neurons drawn anew in the first half of the steps, or None.

    Raises
    ------
    ValueError : a number out of range.
    """

    width: int = 200
    steps: int = 2000
    learning_rate: float = 1e-2
    decay: float = 1e-4
    start: float = 0.1
    perturbation: Perturbation | None = None

    def __post_init__(self) -> None:
        for name in ("width", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "start"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.decay < math.inf:
            raise ValueError(f"decay must not be negative, got {self.decay}")


def two_layers(d: int, training: Training, *, generator: torch.Generator) -> nn.Sequential:
    """A network without biases at its start."""
    layers = (nn.Linear(d, training.width, bias=False), nn.Linear(training.width, 1, bias=False))
    with torch.no_grad():
        for layer in layers:
            deviation = training.start / math.sqrt(layer.in_features)
            layer.weight.copy_(deviation * torch.randn(layer.weight.shape, generator=generator))
    return nn.Sequential(layers[0], nn.ReLU(), layers[1])


def fit(network: nn.Sequential, X: Tensor, y: Tensor, training: Training, *, generator: torch.Generator) -> Iterator[float]:
    """Train in place, yielding mean log(1 + exp(-y f)) + lambda |theta|^2 before each step.

    network : of `two_layers`. generator : of the perturbations.

    Raises
    ------
    ValueError : another network, a loss that is not finite.
    """
    inner, outer = network[0], network[-1]
    if not (len(network) == 3 and isinstance(inner, nn.Linear) and isinstance(outer, nn.Linear)):
        raise ValueError(f"a network of two_layers is needed, got {network}")
    plain = torch.optim.Adam(network.parameters(), lr=training.learning_rate)
    optimizer: torch.optim.Optimizer | Perturbed = plain
    if training.perturbation is not None:
        optimizer = Perturbed(plain, inner, outer, generator=generator, perturbation=training.perturbation)
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * (1 + math.cos(math.pi * step / training.steps)) / 2
        size = sum(p.square().sum() for p in network.parameters())
        loss = functional.softplus(-y * network(X)[:, 0]).mean() + training.decay * size
        optimizer.zero_grad()
        loss.backward()
        (optimizer if 2 * step < training.steps else plain).step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(f"the loss became {value} at step {step}: take a learning_rate below {training.learning_rate}")
        yield value


@dataclass(frozen=True)
class Outcome:
    """One model on one draw.

    accuracy : share of fresh points that it classifies rightly.
    margin : normalized, on the points that it was trained on; of the kernel in its space.
    seconds : of one processor, in training.
    """

    dimension: int
    points: int
    seed: int
    model: str
    accuracy: float
    margin: float
    seconds: float


def compare(
    draw: Draw, d: int, n: int, seed: int, training: Training, *, lazy: bool = False, tested: int = 5000
) -> Iterator[Outcome]:
    """The network and the kernel on n points in d dimensions, both tried on `tested` fresh ones.

    lazy : train a network without decay from a start of LAZY_START as well.

    Raises
    ------
    ValueError : n beyond what a kernel matrix is made of, fewer than one point tried, points that a model does not separate.
    """
    if not 1 <= n <= LARGEST or tested < 1:
        raise ValueError(f"from 1 to {LARGEST} points and at least 1 tried are needed, got {n} and {tested}")
    X, y = draw(n, d, generator=torch.Generator().manual_seed(seed))
    fresh, labels = draw(tested, d, generator=torch.Generator().manual_seed(seed + 2**32))
    settings = {NETWORK: training}
    if lazy:
        settings[LAZY] = replace(training, decay=0.0, start=LAZY_START, perturbation=None)
    for name, kind in settings.items():
        generator, began = torch.Generator().manual_seed(seed), time.process_time()
        network = two_layers(d, kind, generator=generator)
        for _ in fit(network, X, y, kind, generator=generator):
            pass
        seconds = time.process_time() - began
        with torch.no_grad():
            accuracy = _share(network(fresh)[:, 0], labels)
        yield Outcome(d, n, seed, name, accuracy, normalized_margin(network, X, y), seconds)
    X, fresh, began = X.double(), fresh.double(), time.process_time()
    found = separate(kernels.ntk(X, X), y)
    seconds = time.process_time() - began
    accuracy = _share(kernels.ntk(fresh, X) @ found.coefficients, labels)
    yield Outcome(d, n, seed, KERNEL, accuracy, found.margin, seconds)


def _share(values: Tensor, labels: Tensor) -> float:
    return float((values * labels > 0).double().mean())


def collected(outcomes: Sequence[Outcome], model: str) -> dict[tuple[int, int], list[Outcome]]:
    """Of one model, by dimension and number of points in rising order, one a seed."""
    found: dict[tuple[int, int], list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda o: (o.dimension, o.points, o.seed)):
        if outcome.model == model:
            found.setdefault((outcome.dimension, outcome.points), []).append(outcome)
    return found


def draw_accuracies(outcomes: Sequence[Outcome], path: Path) -> None:
    """A PNG of accuracy in %: the networks against n/d, the kernel against n/d^2, mean over seeds, from worst to best."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, models, power in ((panels[0], (NETWORK, LAZY), 1), (panels[1], (KERNEL,), 2)):
        for model, line in zip(models, ("-", ":"), strict=False):
            found = collected(outcomes, model)
            for k, d in enumerate(sorted({d for d, _ in found})):
                curves = [[100 * o.accuracy for o in found[key]] for key in found if key[0] == d]
                at = [n / d**power for e, n in found if e == d]
                mean = [sum(curve) / len(curve) for curve in curves]
                axes.plot(at, mean, line, color=f"C{k}", marker="o", markersize=4, label=f"{model}, d = {d}")
                axes.fill_between(at, list(map(min, curves)), list(map(max, curves)), color=f"C{k}", alpha=0.15, linewidth=0)
        axes.set(xlabel="n / d" if power == 1 else "n / d²", xscale="log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    panels[0].set_ylabel("accuracy on fresh points in %")
    with aside(path) as temporary:
        figure.savefig(temporary, dpi=150)
