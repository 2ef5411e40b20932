"""Networks made of blocks."""

from stablenet.networks.architectures import ClassifierArchitecture, DenoiserArchitecture
from stablenet.networks.classifier import Classifier
from stablenet.networks.denoiser import Denoiser
from stablenet.networks.symmetrized import Symmetrized

__all__ = ["Classifier", "ClassifierArchitecture", "Denoiser", "DenoiserArchitecture", "Symmetrized"]
