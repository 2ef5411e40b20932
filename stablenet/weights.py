"""Weights by name: the bytes are checked, the certificate is computed again from the weights, or loading is refused.

Source: certificates are functions of the weights (docs/theorems.md, C7); the card only says what to expect.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from stablenet.bundled import available, data_path
from stablenet.certificate import Certificate, CertificateTree, certify
from stablenet.files import aside
from stablenet.networks.classifier import Classifier, ClassifierArchitecture
from stablenet.networks.denoiser import Denoiser, DenoiserArchitecture

KINDS = {"denoiser": (Denoiser, DenoiserArchitecture), "classifier": (Classifier, ClassifierArchitecture)}
NOT_IN_CARDS = ("tableau", "policy")
FORMAT = 1
TRAINING_ONLY = ("power_vector", "directions", "tracked_norm")


class WeightsRefused(ValueError):
    """Raised when weights are missing, were changed, or no longer carry the certificate their card states."""


def pretrained(name: str, *, kind: str | None = None) -> nn.Module:
    """A shipped network by name, as "denoiser-gray", in evaluation mode and re-certified from its weights.

    Call a denoiser as denoiser(x, sigma) with x (batch, channels, height, width) in [0, 1] and sigma a standard deviation,
    a classifier as classifier(x). `kind` asks for a "denoiser" or a "classifier" and refuses the other.

    Raises
    ------
    WeightsRefused : an unknown name, bytes that do not match the card, or a certificate that no longer holds.
    """
    if name not in available():
        raise WeightsRefused(f"no weights named {name!r}: available are {', '.join(available()) or 'none'}")
    return load(data_path(f"weights/{name}.safetensors"), kind=kind)


def load(path: Path | str, *, kind: str | None = None) -> nn.Module:
    """A network from weights saved by `save`, with their card beside them, in evaluation mode, frozen.

    `kind` asks for a "denoiser" or a "classifier" and refuses the other.

    Raises
    ------
    WeightsRefused : a file is missing or unreadable, its sha256 is not the card's, a weight is NaN or infinite, the
        certificate computed from the weights is worse than the card's, or it is of another kind.
    """
    path = Path(path)
    card = read_card(path)
    found_kind = card.get("kind", "denoiser")
    if found_kind not in KINDS or (kind is not None and kind != found_kind):
        raise WeightsRefused(f"{path.name} holds a {found_kind}: needed is a {kind or ' or a '.join(KINDS)}")
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
        network_class, architecture_class = KINDS[found_kind]
        network = network_class(architecture_class(**card["architecture"]))
        _fill(network, tensors)
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise WeightsRefused(f"{path.name} does not fit its card: {error}") from None
    network.requires_grad_(False)
    found, stated = certify(network).certificate, card["certificate"]
    alpha = stated["averagedness"]
    holds = _worth_a_card(network, found) and found.lipschitz <= stated["lipschitz"] * (1 + 1e-9)
    if not (holds and (alpha is None or found.averagedness <= alpha * (1 + 1e-9))):
        claims = f"lipschitz <= {stated['lipschitz']:.6g}" + ("" if alpha is None else f" and averagedness <= {alpha:.6g}")
        raise WeightsRefused(
            f"the certificate of {path.name} no longer holds: its card states {claims}, the weights give {found}; train or "
            "fetch them again"
        )
    return network


def _worth_a_card(network: nn.Module, certificate: Certificate) -> bool:
    """Denoisers must be averaged; of a classifier any finite constant says something."""
    return certificate.is_averaged or type(network) is Classifier


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
        stated = card["certificate"]
        alpha = None if card.get("kind") == "classifier" else float(stated["averagedness"])
        card["certificate"] = {"lipschitz": float(stated["lipschitz"]), "averagedness": alpha}
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsRefused(f"the card {place.name} cannot be used: {error!r}") from None
    return card


def save(network: Denoiser | Classifier, path: Path | str, **provenance: object) -> CertificateTree:
    """Write weights and card (PATH.safetensors, PATH.json), each aside and then renamed; returns the certificate.

    `provenance` (data, recipe, seed, scores, ...) goes into the card as it is and must be JSON.

    Raises
    ------
    WeightsRefused : a denoiser that is not averaged, so that it has no certificate worth a card, or a tableau or policy
        that the card would not keep.
    """
    kind = next((name for name, (network_class, _) in KINDS.items() if type(network) is network_class), None)
    if kind is None:
        raise WeightsRefused(f"not saved: a {type(network).__name__} is neither a {' nor a '.join(KINDS)}")
    standard = KINDS[kind][1]()
    if network.architecture.tableau != standard.tableau or network.architecture.policy != standard.policy:
        raise WeightsRefused(
            f"not saved: cards describe networks with tableau {standard.tableau.name} and policy {standard.policy}, not "
            f"{network.architecture.tableau.name} and {network.architecture.policy}"
        )
    path = Path(path).with_suffix(".safetensors")
    training = network.training
    network.eval()
    tree = certify(network)
    if not _worth_a_card(network, tree.certificate):
        raise WeightsRefused(f"not saved: the network is not certified averaged ({tree.certificate}); call enforce(model)")
    content = save_tensors(
        {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items() if not k.endswith(TRAINING_ONLY)}
    )
    values = asdict(network.architecture)
    card = {
        "name": path.stem,
        "kind": kind,
        "format": FORMAT,
        "architecture": {f.name: values[f.name] for f in fields(standard) if f.name not in NOT_IN_CARDS},
        "certificate": {"lipschitz": tree.lipschitz, "averagedness": tree.averagedness},
        "sha256": hashlib.sha256(content).hexdigest(),
        "parameters": sum(p.numel() for p in network.parameters()),
        **provenance,
    }
    text = json.dumps(card, indent=2)
    for place, data in ((path, content), (path.with_suffix(".json"), text.encode())):
        with aside(place) as temporary:
            temporary.write_bytes(data)
    network.train(training)
    return tree
