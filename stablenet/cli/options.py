"""Options that commands share, each said once, and how names become networks and images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import tyro

from stablenet.bundled import weights_path
from stablenet.devices import find_device
from stablenet.images.labeled import LabeledImages
from stablenet.images.sources import LabeledSource
from stablenet.networks import Classifier
from stablenet.weights import load

Device = Annotated[str, tyro.conf.arg(metavar="{cpu,cuda}")]


@dataclass(frozen=True)
class Common:
    """What every command that takes weights takes."""

    weights: tyro.conf.Positional[str]
    """A .safetensors file with its card beside it, or the name of shipped weights, as denoiser-gray."""
    device: Device = field(default="cpu", kw_only=True)
    """Where to compute; cuda:1 is the second GPU."""

    def network(self, *, kind: str | None = None) -> Any:
        """The network, of whatever class, certified anew, on its device."""
        device = find_device(self.device)
        return load(weights_path(self.weights), kind=kind).to(device)


def classifier_and_images(common: Common, source: LabeledSource) -> tuple[Classifier, LabeledImages]:
    """A classifier, and test images of the size that it takes."""
    network = common.network(kind="classifier")
    if not isinstance(network, Classifier):
        raise TypeError(f"{common.weights} holds a {type(network).__name__}, needed is a classifier")
    a = network.architecture
    if source.size is None and a.height == a.width:
        source = replace(source, size=a.height)
    return network, source.read(train=False, channels=a.channels)


def print_shares(shares: dict[float, float], what: str, count: int) -> None:
    """One line an epsilon: the share of `count` images in %."""
    for epsilon, share in shares.items():
        print(f"{f'{what} at {epsilon:.4g}' if epsilon else 'clean'}: {100 * share:.2f} % of {count} images")
