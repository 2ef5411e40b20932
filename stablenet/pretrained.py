"""Weights by name: the bytes are checked, the certificate is computed again from the weights, or loading is refused.

Source: certificates are functions of the weights (docs/theorems.md, C7); the card only says what to expect.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from stablenet.certificate import CertificateTree, certify
from stablenet.networks.denoiser import Denoiser, DenoiserArchitecture

ARCHITECTURE = ("channels", "features", "kernel_size", "blocks", "segments", "scale", "extra_channels")
ARCHITECTURE += ("averagedness", "anchored", "max_noise_level")
FORMAT = 1
TRAINING_ONLY = ("power_vector", "tracked_norm")


class WeightsRefused(ValueError):
    """Raised when weights are missing, were changed, or no longer carry the certificate their card states."""


def data_path(name: str) -> Path:
    """The path of a bundled file, as "images/camera.png": in an installed wheel or in a checkout.

    Raises
    ------
    WeightsRefused : no such file is bundled.
    """
    here = Path(__file__).resolve().parent
    for root in (here / "_data", here.parent / "data"):
        if (root / name).is_file():
            return root / name
    raise WeightsRefused(f"{name} is not bundled with this installation: reinstall the package")


def available() -> tuple[str, ...]:
    """The names that `pretrained` takes."""
    here = Path(__file__).resolve().parent
    roots = (here / "_data" / "weights", here.parent / "data" / "weights")
    return tuple(sorted({p.stem for root in roots for p in root.glob("*.safetensors")}))


def weights_path(name: str) -> Path:
    """Where the shipped weights of that name are, or the name itself as a path when none are."""
    return data_path(f"weights/{name}.safetensors") if name in available() else Path(name)


def pretrained(name: str) -> nn.Module:
    """A shipped network by name, as "denoiser-gray", in evaluation mode and re-certified from its weights.

    Call it as denoiser(x, sigma) with x (batch, channels, height, width) in [0, 1] and sigma a standard deviation.

    Raises
    ------
    WeightsRefused : an unknown name, bytes that do not match the card, or a certificate that no longer holds.
    """
    if name not in available():
        raise WeightsRefused(f"no weights named {name!r}: available are {', '.join(available()) or 'none'}")
    return load(data_path(f"weights/{name}.safetensors"))


def load(path: Path | str) -> nn.Module:
    """A network from weights saved by `save`, with their card beside them, in evaluation mode, frozen.

    Raises
    ------
    WeightsRefused : a file is missing or unreadable, its sha256 is not the card's, a weight is NaN or infinite, or the
        certificate computed from the weights is worse than the card's.
    """
    path = Path(path)
    card = read_card(path)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != card.get("sha256"):
        raise WeightsRefused(
            f"{path.name} has sha256 {digest[:16]}..., its card says {str(card.get('sha256'))[:16]}...: the weights were "
            "changed or damaged; fetch them again, or write them anew with their card (save in stablenet/pretrained.py)"
        )
    if card.get("format") != FORMAT:
        raise WeightsRefused(
            f"{path.name} has card format {card.get('format')!r}, this version reads {FORMAT}: the same numbers would mean "
            "another function; train again from the card's recipe"
        )
    try:
        tensors = load_tensors(content)
        network = Denoiser(DenoiserArchitecture(**card["architecture"]))
        _fill(network, tensors)
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise WeightsRefused(f"{path.name} does not fit its card: {error}") from None
    network.requires_grad_(False)
    found, stated = certify(network).certificate, card["certificate"]
    holds = found.is_averaged and found.lipschitz <= stated["lipschitz"] * (1 + 1e-9)
    if not (holds and found.averagedness <= stated["averagedness"] * (1 + 1e-9)):
        raise WeightsRefused(
            f"the certificate of {path.name} no longer holds: its card states lipschitz <= {stated['lipschitz']:.6g} and "
            f"averagedness <= {stated['averagedness']:.6g}, the weights give {found}; train or fetch them again"
        )
    return network


def _fill(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    bad = [key for key, value in tensors.items() if not torch.isfinite(value).all()]
    if bad:
        raise ValueError(f"{', '.join(bad)} hold NaN or infinity")
    for module in network.modules():
        module.training = False  # as eval() does, without looking at the norms of the random start
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    missing = [key for key in missing if not key.endswith(TRAINING_ONLY)]
    if missing or unexpected:
        raise ValueError(f"missing {missing}, unexpected {unexpected}")


def read_card(path: Path | str) -> dict:
    """The card beside a weights file: provenance, architecture, recipe, PSNR table, certificate, sha256.

    Raises
    ------
    WeightsRefused : the weights or the card are missing, or the card is no JSON object with the entries needed.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsRefused(f"no weights at {path}: give an existing .safetensors file")
    place = path.with_suffix(".json")
    if not place.is_file():
        raise WeightsRefused(f"{path.name} has no card: expected {place.name} beside it")
    try:
        card = json.loads(place.read_text())
        card["architecture"], card["sha256"]
        card["certificate"] = {key: float(card["certificate"][key]) for key in ("lipschitz", "averagedness")}
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsRefused(f"the card {place.name} cannot be used: {error!r}") from None
    return card


def save(network: Denoiser, path: Path | str, **provenance: object) -> CertificateTree:
    """Write weights and card (PATH.safetensors, PATH.json), each aside and then renamed; returns the certificate.

    `provenance` (data, recipe, seed, psnr, ...) goes into the card as it is and must be JSON.

    Raises
    ------
    WeightsRefused : the network is not averaged, so that it has no certificate worth a card, or it has a tableau or a
        policy that the card would not keep.
    """
    standard = DenoiserArchitecture()
    if network.architecture.tableau != standard.tableau or network.architecture.policy != standard.policy:
        raise WeightsRefused(
            f"not saved: cards describe networks with tableau {standard.tableau.name} and policy {standard.policy}, not "
            f"{network.architecture.tableau.name} and {network.architecture.policy}"
        )
    path = Path(path).with_suffix(".safetensors")
    training = network.training
    network.eval()
    tree = certify(network)
    if not tree.certificate.is_averaged:
        raise WeightsRefused(f"not saved: the network is not certified averaged ({tree.certificate}); call enforce(model)")
    content = save_tensors(
        {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items() if not k.endswith(TRAINING_ONLY)}
    )
    architecture = asdict(network.architecture)
    card = {
        "name": path.stem,
        "format": FORMAT,
        "architecture": {key: architecture[key] for key in ARCHITECTURE},
        "certificate": {"lipschitz": tree.lipschitz, "averagedness": tree.averagedness},
        "sha256": hashlib.sha256(content).hexdigest(),
        "parameters": sum(p.numel() for p in network.parameters()),
        **provenance,
    }
    text = json.dumps(card, indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    for place, data in ((path, content), (path.with_suffix(".json"), text.encode())):
        aside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        aside.write_bytes(data)
        os.replace(aside, place)
    network.train(training)
    return tree
