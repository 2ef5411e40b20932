"""Everything that carries a proof: a new tableau, activation, map or network is one line here, tried under every theorem."""

from tests.inventory.blocks import block
from tests.inventory.maps import ACTIVATIONS, MAPS
from tests.inventory.networks import ARCHITECTURES, CLASSIFIERS, wild_classifier, wild_denoiser
from tests.inventory.tableaus import CONTRACTIVE, RADII

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "CLASSIFIERS",
    "CONTRACTIVE",
    "MAPS",
    "RADII",
    "block",
    "wild_classifier",
    "wild_denoiser",
]
