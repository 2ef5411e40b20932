"""A block's objective falls at every step, whatever its activation; beside it, what noise leaves of the accuracy.

Run it with `python examples/plot_kernel_block.py`; the figure appears as kernel-block/kernel_block.png. On the left Q at y_0 to
y_T for three activations, on patches of Fashion-MNIST turned by a rotation that was fitted without labels; on the right the
accuracy of a small network, trained on clean images with and without a block behind its first layer, against the
noise.
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from stablenet import proximal
from stablenet.blocks import NOK
from stablenet.files import aside
from stablenet.images.sources import LabeledSource
from stablenet.linear import frames, rotation
from stablenet.plugging import fit_rotation
from stablenet.training.backbones import BACKBONES
from stablenet.training.noise_robustness import Comparison, collected, compare

STEPS, SIDE = 12, 8
ACTIVATIONS = {
    "ReLU": proximal.Nonnegative(),
    "soft threshold": proximal.SoftThreshold(0.1),
    "hard threshold (no certificate)": proximal.HardThreshold(0.02),
}


def falls(x: torch.Tensor) -> dict[str, list[float]]:
    """The mean of Q over a batch after each step, the rotation fitted to the batch first."""
    curves = {}
    for name, prox in ACTIVATIONS.items():
        turned = rotation.Fixed.random(x.shape[1])
        block = NOK(frames.DFT(x.shape[1], 4 * x.shape[1]), prox, steps=STEPS, rotation=turned)
        fit_rotation(block, x, rounds=20)
        objectives = block.objectives(x)
        assert (objectives.diff(dim=0) <= 1e-12).all(), "Q rose"
        curves[name] = objectives.mean(1).tolist()
        print(f"{name}: Q falls from {curves[name][0]:.3f} to {curves[name][-1]:.3f}")
    return curves


def main(folder: Path = Path("kernel-block")) -> None:
    images = LabeledSource().read(train=True, channels=1)
    patches = (images.images[:200, 0, 10 : 10 + SIDE, 10 : 10 + SIDE].double() / 255).flatten(1)
    curves = falls(patches - patches.mean(1, keepdim=True))
    backbone = BACKBONES["mlp"]
    results = []
    for trained, _ in compare(
        lambda: backbone.build(images.shape, 10),
        lambda: NOK(frames.DFT(backbone.features, 2 * backbone.features), proximal.SoftThreshold(0.3)),
        backbone.places["hidden"],
        images.part(0, 2000),
        images.part(9000, None),
        Comparison(epochs=4, seeds=2),
    ):
        results.append(trained)
        print(f"{trained.network}, seed {trained.seed}: {trained.accuracies['gaussian']}")
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, values in curves.items():
        left.plot(range(STEPS + 1), values, marker="o", markersize=3, label=name)
    left.set(xlabel="step t", ylabel="Q(y_t), mean over 200 patches", title="the forward pass descends", ylim=(0, None))
    for k, (name, curve) in enumerate(collected(results, "gaussian").items()):
        shares = [[100 * v for v in curve[d]] for d in curve]
        right.plot(list(curve), [sum(s) / len(s) for s in shares], color=f"C{k}", marker="o", markersize=4, label=name)
        right.fill_between(list(curve), list(map(min, shares)), list(map(max, shares)), color=f"C{k}", alpha=0.15)
    right.set(xlabel="deviation of Gaussian noise", ylabel="accuracy in %", title="trained on clean images, two seeds")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    with aside(folder / "kernel_block.png") as temporary:
        figure.savefig(temporary, dpi=110)
    print(f"wrote {folder / 'kernel_block.png'}")


if __name__ == "__main__":
    main()
