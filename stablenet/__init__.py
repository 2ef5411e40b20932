"""stablenet: neural networks whose stability is proved, from the weights, by certificates."""

from stablenet import activations, blocks, enforcement, linear, networks, spectral, tableaus
from stablenet.certificate import Certificate, CertificateTree, NotCertified, certify
from stablenet.enforcement import attach, enforce
from stablenet.pretrained import WeightsRefused, pretrained

__version__ = "0.1.0"
__all__ = [
    "Certificate",
    "CertificateTree",
    "NotCertified",
    "WeightsRefused",
    "activations",
    "attach",
    "blocks",
    "certify",
    "enforce",
    "enforcement",
    "linear",
    "networks",
    "spectral",
    "pretrained",
    "tableaus",
]
