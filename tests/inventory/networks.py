"""Denoisers and classifiers of every shape, with weights far from where training begins."""

from __future__ import annotations

import torch

import stablenet
from stablenet import tableaus
from stablenet.enforcement import Step, Substeps
from stablenet.networks import Classifier, ClassifierArchitecture, Denoiser, DenoiserArchitecture

ARCHITECTURES = {
    "anchored": DenoiserArchitecture(features=6, kernel_size=3, blocks=3, averagedness=0.5),
    "composed": DenoiserArchitecture(features=6, kernel_size=3, blocks=3, averagedness=0.5, anchored=False),
    "deep-anchored": DenoiserArchitecture(features=4, kernel_size=7, blocks=6, averagedness=0.8),
    "color": DenoiserArchitecture(channels=3, features=6, kernel_size=3, blocks=2, averagedness=0.5),
    "full-resolution": DenoiserArchitecture(features=6, kernel_size=5, blocks=2, scale=1, extra_channels=2, averagedness=0.5),
    "step-heun": DenoiserArchitecture(
        features=6, kernel_size=3, blocks=2, averagedness=0.5, anchored=False, tableau=tableaus.HEUN, policy=Step()
    ),
}

CLASSIFIERS = {
    "average": ClassifierArchitecture(
        height=8, width=8, stages=((4, 1), (6, 1)), downsampling="average", maxmin=True, dense_features=8, classes=4
    ),
    "unshuffle": ClassifierArchitecture(
        channels=3, height=7, width=9, stages=((12, 1),), dense_features=6, dense_blocks=1, maxmin=True, classes=3
    ),
    "heun-substeps": ClassifierArchitecture(
        height=8,
        width=8,
        stages=((4, 1), (16, 1)),
        maxmin=True,
        tableau=tableaus.HEUN,
        policy=Substeps(),
        classes=3,
    ),
    "no-maxmin": ClassifierArchitecture(height=6, width=6, scale=1, stages=((3, 2),), dense_blocks=0, maxmin=False, classes=2),
}


def wild_denoiser(architecture: DenoiserArchitecture, seed: int = 0) -> Denoiser:
    """A float64 denoiser whose weights are far from their initial values, in evaluation mode."""
    torch.manual_seed(seed)
    network = Denoiser(architecture)
    with torch.no_grad():
        for flow in network.blocks:
            flow.linear.weight.add_(torch.randn_like(flow.linear.weight))
            flow.activation.logits.add_(3 * torch.randn_like(flow.activation.logits))
        network.log_scales.add_(torch.randn_like(network.log_scales))
        if network.anchors is not None:
            network.anchors.add_(3 * torch.randn_like(network.anchors) - 2)
    stablenet.enforce(network.double().eval(), certified=True)
    return network


def wild_classifier(architecture: ClassifierArchitecture, seed: int = 0) -> Classifier:
    """A float64 classifier whose weights are far from their initial values, in evaluation mode."""
    torch.manual_seed(seed)
    network = Classifier(architecture)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    stablenet.enforce(network.double().eval(), certified=True)
    return network
