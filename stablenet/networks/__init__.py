"""Networks made of blocks."""

from stablenet.networks.denoiser import Denoiser, DenoiserArchitecture
from stablenet.networks.symmetrized import Symmetrized

__all__ = ["Denoiser", "DenoiserArchitecture", "Symmetrized"]
