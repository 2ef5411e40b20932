"""stablenet: neural networks whose stability is proved, from the weights, by certificates."""

import os
from typing import TYPE_CHECKING

# Before torch is loaded: its threads wait for each other some 20 microseconds, then asleep. By default they spin for
# milliseconds, at every kernel, wherever another process has one of their cores (benchmarks/busy.py).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from stablenet import (  # noqa: E402
    activations,
    blocks,
    butcher,
    cards,
    enforcement,
    kernels,
    kinds,
    linear,
    networks,
    proximal,
    spectral,
    tableaus,
)
from stablenet.certificate import Certificate, CertificateTree, NotCertified, certify  # noqa: E402
from stablenet.enforcement import attach, enforce  # noqa: E402
from stablenet.plugging import plug_in  # noqa: E402
from stablenet.weights import WeightsRefused, load, save  # noqa: E402

if TYPE_CHECKING:
    from stablenet.weights import pretrained
else:
    from stablenet import pretrained  # the module of that name: it is callable

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
    "kernels",
    "kinds",
    "load",
    "linear",
    "networks",
    "spectral",
    "plug_in",
    "pretrained",
    "proximal",
    "save",
    "tableaus",
]
