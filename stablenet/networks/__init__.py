"""Networks made of blocks."""

from stablenet.networks.denoiser import Denoiser, DenoiserArchitecture

__all__ = ["Denoiser", "DenoiserArchitecture"]
