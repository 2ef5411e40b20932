"""Networks made of blocks."""

from stablenet.networks.architectures import ClassifierArchitecture, DenoiserArchitecture, RidgeArchitecture
from stablenet.networks.classifier import Classifier
from stablenet.networks.denoiser import Denoiser
from stablenet.networks.guided import Guidance, Guided
from stablenet.networks.limit import NOKLimit
from stablenet.networks.reweighted import Reweighted
from stablenet.networks.ridge import Ridge
from stablenet.networks.symmetrized import Symmetrized

__all__ = [
    "Classifier",
    "ClassifierArchitecture",
    "Denoiser",
    "DenoiserArchitecture",
    "Guidance",
    "Guided",
    "NOKLimit",
    "Reweighted",
    "Ridge",
    "RidgeArchitecture",
    "Symmetrized",
]
