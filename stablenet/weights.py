"""Weights with their card: the bytes are checked, the certificate is computed again from the weights, or loading is refused.

Source: certificates are functions of the weights (docs/theorems.md, C7); the card only says what to expect.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as short
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from stablenet import cards
from stablenet.bundled import available, data_path
from stablenet.certificate import CertificateTree, NotCertified, certify
from stablenet.entries import OWN_ENTRIES, CardRefused, checked
from stablenet.files import together

FORMAT = 2
READ = (1, 2)
PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
        raise WeightsRefused(f"no weights named {short(name)}: available are {', '.join(available()) or 'none'}")
    return load(data_path(f"weights/{name}.safetensors"), kind=kind)


def load(path: Path | str, *, kind: str | None = None) -> nn.Module:
    """A network from weights saved by `save`, with their card beside them, in evaluation mode, frozen.

    The network is built in the precision of the file. `kind` asks for a "denoiser" or a "classifier" and refuses the other.

    Raises
    ------
    WeightsRefused : a file is missing or unreadable, an entry of the card is not what it must be, the sha256 is not the
        card's, a weight is NaN or infinite, the certificate computed from the weights is worse than the card's, or the
        network is of another kind.
    """
    path = Path(path)
    card = read_card(path)
    if card["kind"] not in cards.known() or (kind is not None and kind not in (card["kind"], cards.named(card["kind"]).role)):
        raise WeightsRefused(f"{path.name} holds a {card['kind']}: needed is a {kind or ' or a '.join(cards.known())}")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != card["sha256"]:
        raise WeightsRefused(
            f"{path.name} has sha256 {digest[:16]}..., its card says {card['sha256'][:16]}...: the weights were changed or "
            "damaged; fetch them again, or write them anew with their card (stablenet.save)"
        )
    if card["format"] not in READ:
        raise WeightsRefused(
            f"{path.name} has card format {card['format']!r}, this version reads {', '.join(map(str, READ))}: the same numbers "
            "would mean another function; train again from the card's recipe"
        )
    try:
        network = _filled(card, load_tensors(content))
        tree = certify(network)
    except (SafetensorError, NotCertified, KeyError, TypeError, RuntimeError, ValueError, ArithmeticError) as error:
        raise WeightsRefused(f"{path.name} does not fit its card: {error or type(error).__name__}") from None
    _require_certificate(path.name, card, tree)
    return network


def _require_certificate(name: str, card: dict[str, Any], tree: CertificateTree) -> None:
    """What the weights give must be at least what the card states."""
    stated, found = card["certificate"], tree.certificate
    lipschitz, alpha = stated["lipschitz"], stated["averagedness"]
    holds = math.isfinite(lipschitz) and found.lipschitz <= lipschitz * (1 + 1e-9)
    if alpha is not None:
        holds = holds and math.isfinite(alpha) and found.averagedness is not None
        holds = holds and found.averagedness <= alpha * (1 + 1e-9)
    lacks = cards.named(card["kind"]).lacks(tree)
    if lacks is not None or not holds:
        claims = f"lipschitz <= {lipschitz:.6g}" + ("" if alpha is None else f" and averagedness <= {alpha:.6g}")
        raise WeightsRefused(
            f"the certificate of {name} no longer holds: its card states {claims}, the weights give {found}"
            + (f" ({lacks})" if lacks else "")
            + "; train or fetch them again"
        )


def _filled(card: dict[str, Any], tensors: dict[str, Tensor]) -> nn.Module:
    """A network of the card's architecture with these tensors, in their precision."""
    bad = [key for key, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise ValueError(f"{', '.join(bad)} hold NaN or infinity")
    precision = _precision(tensors)
    longest = max([1, *(side for value in tensors.values() for side in value.shape)])
    with _at_most(sum(value.numel() for value in tensors.values())), torch.random.fork_rng(devices=[]):
        network = cards.build(card["kind"], card["architecture"], largest=longest, format=card["format"])
    network = network.to(precision).eval()
    needed = {key: value.shape for key, value in network.state_dict().items()}
    missing, unexpected = sorted(needed.keys() - tensors), sorted(tensors.keys() - needed)
    if missing or unexpected:
        raise ValueError(f"missing {short(missing)}, unexpected {short(unexpected)}")
    for key, shape in needed.items():
        if tensors[key].shape != shape:
            raise ValueError(f"{key} has shape {tuple(tensors[key].shape)}, the architecture needs {tuple(shape)}")
    network.load_state_dict(tensors)
    count = sum(p.numel() for p in network.parameters())
    if card["parameters"] not in (0, count):  # 0: an old card, which does not say
        raise ValueError(f"parameters is {card['parameters']}, but the network has {count}")
    return network.requires_grad_(False)


def _precision(tensors: dict[str, Tensor]) -> torch.dtype:
    found = {value.dtype for value in tensors.values() if value.is_floating_point() or value.is_complex()}
    if len(found) != 1 or not found <= set(PRECISIONS):
        names = ", ".join(sorted(str(dtype) for dtype in found)) or "none"
        raise ValueError(f"the weights must be real floating-point numbers of one precision, got {names}")
    return found.pop()


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Stop a network from being built that has more parameters than there are numbers to fill it with."""
    left = [count]

    def spend(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        left[0] -= 0 if parameter is None else parameter.numel()
        if left[0] < 0:
            raise CardRefused(f"architecture needs more parameters than the {count} numbers of the weights")

    handle = register_module_parameter_registration_hook(spend)
    try:
        yield
    finally:
        handle.remove()


def read_card(path: Path | str) -> dict[str, Any]:
    """The card beside a weights file: provenance, architecture, recipe, PSNR table, certificate, sha256.

    Raises
    ------
    WeightsRefused : the weights or the card are missing, or an entry is missing or not what it must be.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsRefused(f"no weights at {path}: give an existing .safetensors file")
    place = path.with_suffix(".json")
    if not place.is_file():
        raise WeightsRefused(f"{path.name} has no card: expected {place.name} beside it")
    try:
        return checked(json.loads(place.read_text()))
    except (ValueError, RecursionError) as error:
        raise WeightsRefused(f"the card {place.name} cannot be used: {error or type(error).__name__}") from None


def save(network: nn.Module, path: Path | str, **provenance: object) -> CertificateTree:
    """Write weights and card (PATH.safetensors, PATH.json), both or none; returns the certificate.

    The network is written as it is: one that breaks its constraint is refused, not changed. `provenance` (data, recipe, seed,
    scores, ...) goes into the card as it is and must be JSON.

    Raises
    ------
    WeightsRefused : a network whose kind has no card, whose certificate is not worth one, or entries that are no JSON.
    OSError : the folder cannot be written to, or the disk is full; nothing is left behind then.
    """
    path = Path(path)
    path = path if path.suffix == ".safetensors" else path.with_name(f"{path.name}.safetensors")
    content, card, tree = _certified(network)
    text = _with_provenance({"name": path.stem, **card}, provenance)
    with together(path.with_suffix(".json"), path) as (card_file, weights_file):
        weights_file.write_bytes(content)
        card_file.write_text(text)
    return tree


def _certified(network: nn.Module) -> tuple[bytes, dict[str, Any], CertificateTree]:
    """The tensors as bytes, the card's own entries but its name, and the certificate."""
    try:
        described, tree = cards.describe(network), certify(network)
        tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        _precision(tensors)
    except (NotCertified, ValueError, ArithmeticError) as error:
        raise WeightsRefused(f"not saved: {error or type(error).__name__}") from None
    lacks = cards.kinds.of(network).lacks(tree)
    if lacks is not None:
        raise WeightsRefused(
            f"not saved: {lacks} ({tree.certificate}), and saving changes no weights: call "
            "stablenet.enforce(network, certified=True) first"
        )
    content = save_tensors(tensors)
    card = {
        "kind": described["kind"],
        "format": FORMAT,
        "architecture": described["architecture"],
        "certificate": {"lipschitz": tree.lipschitz, "averagedness": tree.averagedness},
        "sha256": hashlib.sha256(content).hexdigest(),
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    return content, card, tree


def _with_provenance(card: dict[str, Any], provenance: dict[str, object]) -> str:
    taken = [name for name in provenance if name in OWN_ENTRIES]
    if taken:
        raise WeightsRefused(f"not saved: {', '.join(taken)} is written by save itself: choose another name")
    try:
        return json.dumps({**card, **provenance}, indent=2)
    except (TypeError, ValueError, RecursionError) as error:
        raise WeightsRefused(f"not saved: what goes into the card must be JSON: {error}") from None
