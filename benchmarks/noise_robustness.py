"""Claim: on digits no block gains five points in Gaussian noise of 0.3 on a perceptron of as many parameters and seconds.

Nearest neighbors, which train nothing, keep more there than every network.

Run: python benchmarks/noise_robustness.py digits (needs scikit-learn), or fashion-mnist FOLDER (idx files, train-* and t10k-*),
or cifar10 FOLDER (mosaics, see mosaics.py). All networks are trained on clean images, `--seconds` of one processor each, by
AdamW with one rate; those with a bound (ours, SLL, AOL) divide their logits by a temperature in the loss. "MLP + NOK" has the
block in the place of the hidden layer's ReLU and as many parameters; "plugged in" is the same network with a block behind a
layer and exactly its parameters. Noise is not clipped. Each network and seed leaves a file in --runs: `--resume` goes on where
a run ended, `--limit` begins no further network after so many seconds, and the table is of what is there. The defaults take 3
minutes (digits), 50 (Fashion-MNIST) and 90 (CIFAR-10) of one quiet core.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import mean

import torch
from mosaics import Mosaics
from peers import Residual, build
from report import write
from torch import Tensor, nn

from stablenet import proximal
from stablenet.blocks import NOK
from stablenet.files import aside
from stablenet.images.labeled import LabeledImages
from stablenet.images.sources import LabeledSource
from stablenet.linear import frames
from stablenet.networks.architectures import ClassifierArchitecture
from stablenet.plugging import plug_in
from stablenet.robustness.noise import DEVIATIONS, NOISES, accuracy_under_noise, draw_accuracies
from stablenet.training.backbones import HIDDEN, perceptron
from stablenet.training.plain import train_plainly

Shape = tuple[int, int, int]
SECONDS = {"digits": 2.0, "fashion-mnist": 45.0, "cifar10": 90.0}
WIDE = 256
SCALE = 0.7747
TEMPERATURE = 0.15
TRIED, TESTED = 10, 5000


def digits() -> tuple[LabeledImages, LabeledImages]:
    """scikit-learn's 1,797 digits, 8 x 8, in a fixed random order: 500 to test on."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(found.images * (255 / 16)).round().to(torch.uint8)[order, None]
    every = LabeledImages(images, torch.tensor(found.target)[order], tuple(map(str, range(10))))
    return every.part(500, None), every.part(0, 500)


def read(dataset: str, folder: Path | None) -> tuple[LabeledImages, LabeledImages]:
    """Training and test images."""
    if dataset == "digits":
        return digits()
    if folder is None:
        raise SystemExit(f"{dataset} needs its folder")
    source = Mosaics(folder) if dataset == "cifar10" else LabeledSource(folder)
    return source.read(train=True, channels=3), source.read(train=False, channels=3)


class Spread(nn.Module):
    """A block in the place of a hidden layer's activation: its features, not the way back."""

    def __init__(self, inputs: int, block: NOK, classes: int) -> None:
        super().__init__()
        self.first, self.block = nn.Linear(inputs, block.frame.dimension), block
        self.last = nn.Linear(block.frame.size, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(self.first(x.flatten(1))))


def spread(shape: Shape, classes: int, frame: type, prox: proximal.Proximal, scale: float = 1.0) -> nn.Module:
    """As many parameters as `perceptron` has with HIDDEN features, the block's frame WIDE."""
    inputs = math.prod(shape)
    width = round(((inputs + 1 + classes) * HIDDEN - classes * WIDE) / (inputs + 1) / 2) * 2
    return Spread(inputs, NOK(frame(width, WIDE), prox, scale=scale), classes)


def dropping(shape: Shape, classes: int) -> nn.Module:
    network = perceptron(shape, classes)
    network.insert(4, nn.Dropout(0.5))
    return network


def residual(shape: Shape, classes: int) -> nn.Sequential:
    """A small network of residual blocks; layer "2" gives 16 channels."""
    stem = nn.Conv2d(shape[0], 16, 3, stride=1 if shape[1] < 16 else 2, padding=1)
    first, second = (Residual(n, n, convolution=True, normalized=False) for n in (16, 32))
    down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
    return nn.Sequential(
        stem, nn.ReLU(), first, down, nn.ReLU(), second, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, classes)
    )


def plugged(network: nn.Module, layer: str, block: NOK, shape: Shape) -> nn.Module:
    return plug_in(network, layer=layer, block=block, example=torch.zeros(2, *shape))


class Smoothed(nn.Module):
    """The plain baseline of noise: a binomial 3 x 3 mean, then the network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        weights = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", (weights[:, None] * weights)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        wide = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
        return self.network(nn.functional.conv2d(wide, self.kernel.expand(channels, 1, 3, 3), groups=channels))


class Neighbors(nn.Module):
    """The class of the nearest training image: nothing is trained."""

    def __init__(self, images: LabeledImages) -> None:
        super().__init__()
        self.points, self.labels = images.images.flatten(1).float() / 255, images.labels

    def forward(self, x: Tensor) -> Tensor:
        nearest = self.labels[torch.cdist(x.flatten(1), self.points).argmin(1)]
        return nn.functional.one_hot(nearest, int(self.labels.max()) + 1).float()


def bounded(name: str, shape: Shape, classes: int) -> nn.Module:
    """A 1-Lipschitz network of about the perceptron's parameters: lift, two convolutions, two dense layers, head."""
    channels, inputs = 4 * shape[0], math.prod(shape)
    target = (inputs + 1 + classes) * HIDDEN + classes
    left = target - 2 * (9 * channels**2 + channels) - (inputs + 1) * classes
    dense = max(8, round(left / (2 * (inputs + 1))))
    a = ClassifierArchitecture(
        scale=2,
        stages=((channels, 2),),
        dense_features=dense,
        dense_blocks=2,
        channels=shape[0],
        height=shape[1],
        width=shape[2],
        classes=classes,
    )
    return build(name, a)


RELU, SOFT = proximal.Nonnegative(), proximal.SoftThreshold(0.3)
Make = Callable[[Shape, int], nn.Module]
NETWORKS: dict[str, Make] = {
    "MLP": perceptron,
    "MLP, dropout": dropping,
    "MLP, smoothed input": lambda s, c: Smoothed(perceptron(s, c)),
    "MLP + NOK, ReLU, DFT": lambda s, c: spread(s, c, frames.DFT, RELU),
    "MLP + NOK, ReLU, Hadamard": lambda s, c: spread(s, c, frames.Hadamard, RELU),
    "MLP + NOK, ReLU, DCT": lambda s, c: spread(s, c, frames.DCT, RELU),
    "MLP + NOK, ReLU, Haar": lambda s, c: spread(s, c, frames.Haar, RELU),
    "MLP + NOK, soft, DFT": lambda s, c: spread(s, c, frames.DFT, SOFT),
    "MLP + NOK, c ReLU, DFT": lambda s, c: spread(s, c, frames.DFT, RELU, SCALE),
    "MLP, plugged in, soft": lambda s, c: plugged(perceptron(s, c), "2", NOK(frames.DFT(HIDDEN, WIDE), SOFT), s),
    "MLP, plugged in at the input": lambda s, c: plugged(
        perceptron(s, c), "0", NOK(frames.Cosines(s[0], 4), proximal.SoftThreshold(0.05)), s
    ),
    "ResNet": residual,
    "ResNet, plugged in, soft": lambda s, c: plugged(residual(s, c), "2", NOK(frames.DFT(16, 64), SOFT), s),
    "ours, Euler": lambda s, c: bounded("ours, Euler", s, c),
    "SLL": lambda s, c: bounded("SLL", s, c),
    "AOL": lambda s, c: bounded("AOL", s, c),
}
BOUNDED = ("ours, Euler", "SLL", "AOL")
NEIGHBORS = "nearest neighbor"


def trained(name: str, images: LabeledImages, seconds: float, seed: int) -> tuple[nn.Module, int, float]:
    """A network after about so many seconds of one processor, its steps, and the seconds that they took."""
    settings = {"temperature": TEMPERATURE if name in BOUNDED else 1.0}

    def run(steps: int) -> nn.Module:
        torch.manual_seed(seed)
        network = NETWORKS[name](images.shape, len(images.classes))
        for _ in train_plainly(network, images, steps=steps, generator=torch.Generator().manual_seed(seed), **settings):
            pass
        return network

    run(2)
    began = time.process_time()
    run(TRIED)
    steps = max(TRIED, round(seconds * TRIED / (time.process_time() - began)))
    began = time.process_time()
    return run(steps), steps, time.process_time() - began


def measure(name: str, train: LabeledImages, test: LabeledImages, seconds: float, seed: int) -> dict[str, object]:
    """One network of one seed: parameters, seconds of training, accuracies by noise and deviation."""
    steps, spent = 0, 0.0
    if name == NEIGHBORS:
        network: nn.Module = Neighbors(train)
    else:
        network, steps, spent = trained(name, train, seconds, seed)
    found = {
        kind: {str(d): share for d, share in accuracy_under_noise(network, test, noise, seed=seed).items()}
        for kind, noise in NOISES.items()
    }
    parameters = sum(p.numel() for p in network.parameters())
    return {"network": name, "seed": seed, "parameters": parameters, "steps": steps, "seconds": spent, "accuracies": found}


def row(results: list[dict], backbone: float | None) -> dict[str, object]:
    """Means over the seeds in %, and at 0.3 the difference of best and worst seed and the gain over the MLP or the ResNet."""
    columns: dict[str, object] = {"network": results[0]["network"], "parameters": results[0]["parameters"]}
    columns |= {"seeds": len(results), "seconds": mean(r["seconds"] for r in results), "steps": results[0]["steps"]}
    for noise in NOISES:
        for deviation in DEVIATIONS:
            if deviation or noise == "gaussian":
                shares = [100 * r["accuracies"][noise][str(deviation)] for r in results]
                columns[f"{noise} {deviation:g}" if deviation else "clean"] = mean(shares)
    last = [100 * r["accuracies"]["gaussian"]["0.3"] for r in results]
    columns["spread at 0.3"] = max(last) - min(last)
    columns["gain at 0.3"] = "" if backbone is None else mean(last) - backbone
    return columns


def report(a: argparse.Namespace, found: dict[str, list[dict]]) -> None:
    """The table and the figures of what is there."""

    def at(name: str) -> float | None:
        return mean(100 * r["accuracies"]["gaussian"]["0.3"] for r in found[name]) if found.get(name) else None

    rows = [row(results, at("ResNet" if "ResNet" in name else "MLP")) for name, results in found.items() if results]
    if not rows:
        return
    write(f"noise_robustness-{a.dataset}", rows, a.output)
    drawn = [name for name in DRAWN if found.get(name)]
    curves = {n: {d: [r["accuracies"]["gaussian"][str(d)] for r in found[n]] for d in DEVIATIONS} for n in drawn}
    draw_accuracies(curves, a.output / f"noise_robustness-{a.dataset}.png", noise="Gaussian")


DRAWN = (
    "MLP",
    "MLP + NOK, ReLU, DFT",
    "MLP + NOK, c ReLU, DFT",
    "ResNet",
    "ResNet, plugged in, soft",
    "ours, Euler",
    NEIGHBORS,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=SECONDS)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, help="of one processor, for the training of each network and seed")
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds after which no further network is begun")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS, NEIGHBORS], choices=[*NETWORKS, NEIGHBORS])
    parser.add_argument("--count", type=int, help="of training images (the first); all by default")
    parser.add_argument("--resume", action="store_true", help="keep what an earlier run found")
    parser.add_argument("--runs", type=Path, default=Path("runs/noise_robustness"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    a = parser.parse_args()
    torch.set_num_threads(1)
    train, test = read(a.dataset, a.folder)
    train, test = train.part(0, a.count), test.part(0, TESTED)
    began, found = time.monotonic(), {name: [] for name in a.networks}
    for seed in range(a.seeds):
        for name in a.networks:
            if name in ("SLL", "AOL") and find_spec("orthogonium") is None:
                print(f"{name} is left out: orthogonium is not installed")
                continue
            place = a.runs / a.dataset / f"{name.replace(' ', '-').replace(',', '')}-{seed}.json"
            if not (a.resume and place.is_file()):
                if time.monotonic() - began > a.limit:
                    continue
                result = measure(name, train, test, a.seconds or SECONDS[a.dataset], seed)
                with aside(place) as part:
                    part.write_text(json.dumps(result))
                print(f"{name}, seed {seed}: {result['accuracies']['gaussian']}", flush=True)
            found[name].append(json.loads(place.read_text()))
    report(a, found)


if __name__ == "__main__":
    main()
