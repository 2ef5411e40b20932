"""Per-image certified radii from margins and Lipschitz constants, and the certified accuracy they add up to.

Source: docs/theorems.md, R1: the prediction y at x cannot change within min_j (f_y - f_j) / Lip(f_y - f_j) in l2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def certified_radius(logits: Tensor, lipschitz: Tensor) -> Tensor:
    """The l2 radius around each image within which its predicted class cannot change; 0 where the largest logits tie.

    Parameters
    ----------
    logits : (batch, classes), finite.
    lipschitz : (classes, classes), a constant of each difference of logits in units of the input
        (`Classifier.pairwise_lipschitz`), or () for one constant L of the logits as a vector: then the radius is
        margin / (sqrt(2) L).

    Returns (batch,) float64, in units of the image's pixels in [0, 1].

    Raises
    ------
    ValueError : shapes that do not match, NaN or infinite logits, a negative constant.
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits must have shape (batch, classes) with two classes or more, got {tuple(logits.shape)}")
    if not torch.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinity: nothing is certified")
    lipschitz = torch.as_tensor(lipschitz, dtype=torch.float64)
    classes = logits.shape[1]
    if lipschitz.shape not in ((), (classes, classes)):
        raise ValueError(f"lipschitz must be a number or ({classes}, {classes}), got {tuple(lipschitz.shape)}")
    if not (lipschitz >= 0).all():
        raise ValueError(f"Lipschitz constants must be >= 0, got {float(lipschitz.min())}")
    logits = logits.detach().double().cpu()
    best = logits.argmax(1)
    margins = logits.gather(1, best[:, None]) - logits
    constants = lipschitz[best] if lipschitz.ndim else (math.sqrt(2) * lipschitz).expand_as(margins)
    radii = margins / constants.clamp_min(1e-300)
    radii.scatter_(1, best[:, None], math.inf)
    # one unit in the last place for the division, so that the radius is never overstated
    return (radii.amin(1) * (1 - 1e-15)).clamp_min(0.0)


def certified_accuracy(radii: Tensor, predictions: Tensor, labels: Tensor, epsilons: Sequence[float]) -> dict[float, float]:
    """The share of images that are predicted rightly with a certified radius of at least epsilon, for each epsilon.

    epsilon 0 counts every right prediction (clean accuracy). Epsilons are l2 distances for images in [0, 1].

    Raises
    ------
    ValueError : a negative epsilon, one above the diameter of common images (given in 0 to 255?), or shapes that differ.
    """
    if not len(radii) == len(predictions) == len(labels):
        raise ValueError(f"{len(radii)} radii, {len(predictions)} predictions, {len(labels)} labels: give one of each an image")
    right = (predictions.cpu() == labels.cpu()).double()
    return {e: float((right * (radii.cpu() >= check_epsilon(e))).mean()) for e in epsilons}


def check_epsilon(epsilon: float) -> float:
    """epsilon itself, an l2 distance for images in [0, 1].

    Raises
    ------
    ValueError : negative, NaN, or so large that it was probably meant for images in [0, 255].
    """
    if not (isinstance(epsilon, int | float) and 0 <= epsilon < math.inf):
        raise ValueError(f"epsilon must be a finite number >= 0, got {epsilon!r}")
    if epsilon >= 16:
        raise ValueError(
            f"epsilon = {epsilon:g} is an l2 distance for images in [0, 1], and so long a step erases most of them: divide "
            "values given for [0, 255] by 255, as 36/255"
        )
    return float(epsilon)
