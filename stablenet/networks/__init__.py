"""Networks made of blocks."""

from stablenet.networks.classifier import Classifier, ClassifierArchitecture
from stablenet.networks.denoiser import Denoiser, DenoiserArchitecture
from stablenet.networks.symmetrized import Symmetrized

__all__ = ["Classifier", "ClassifierArchitecture", "Denoiser", "DenoiserArchitecture", "Symmetrized"]
