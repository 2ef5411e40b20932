"""stablenet: neural networks whose stability is proved, from the weights, by certificates."""

from stablenet import (
    activations,
    blocks,
    butcher,
    cards,
    enforcement,
    linear,
    networks,
    pretrained,  # callable
    spectral,
    tableaus,
)
from stablenet.certificate import Certificate, CertificateTree, NotCertified, certify
from stablenet.enforcement import attach, enforce
from stablenet.weights import WeightsRefused, load, save

__version__ = "0.2.0"
__all__ = [
    "Certificate",
    "CertificateTree",
    "NotCertified",
    "WeightsRefused",
    "activations",
    "attach",
    "blocks",
    "cards",
    "certify",
    "enforce",
    "enforcement",
    "butcher",
    "load",
    "linear",
    "networks",
    "spectral",
    "pretrained",
    "save",
    "tableaus",
]
