"""How much of a certified constant a network uses at data: what a certificate gives away, measured.

A power iteration is a lower bound: these numbers are reported beside certificates and certify nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stablenet.certificate import certify
from stablenet.images.labeled import LabeledImages
from stablenet.networks.classifier import Classifier
from stablenet.spectral import jacobian_norm


@dataclass(frozen=True)
class Slack:
    """jacobian_norm : the largest |J| of the features before the head met at images, lipschitz : their certified constant,
    margin_slope : the mean over images of |grad (f_y - f_j)| / L_yj for the two largest logits (1: no slack at all)."""

    jacobian_norm: float
    lipschitz: float
    margin_slope: float

    def __str__(self) -> str:
        return (
            f"Jacobian norm of the features at images {self.jacobian_norm:.4g} beside the certified {self.lipschitz:.4g}; "
            f"slope of the decisive margin {self.margin_slope:.3f} of its certified constant (mean)"
        )


def slack_of(classifier: Classifier, images: LabeledImages, *, count: int = 64, iterations: int = 15, seed: int = 0) -> Slack:
    """Measure at the first `count` images (power iteration on J^T J, and one gradient an image)."""
    generator = torch.Generator().manual_seed(seed)
    training = classifier.training
    classifier.eval()
    x = (images.images[:count].float() / 255).to(classifier.head.weight)
    largest = jacobian_norm(classifier.features, x, iterations=iterations, generator=generator)
    x = x.requires_grad_()
    logits = classifier(x)
    best, second = logits.topk(2).indices.T
    gap = logits.gather(1, best[:, None]) - logits.gather(1, second[:, None])
    (slope,) = torch.autograd.grad(gap.sum(), x)
    constants = classifier.pairwise_lipschitz()[best.cpu(), second.cpu()]
    share = float((slope.flatten(1).norm(dim=1).double().cpu() / constants).mean())
    lipschitz = certify(classifier.body).lipschitz
    classifier.train(training)
    return Slack(largest, lipschitz, share)
