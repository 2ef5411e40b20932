"""Per-image certified radii from margins, Lipschitz constants and rounding, and the certified accuracy they add up to.

Source: docs/theorems.md, R1: the prediction y at x cannot change within min_j (f_y - f_j) / Lip(f_y - f_j) in l2.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from stablenet import forward_error
from stablenet.networks.classifier import Classifier
from stablenet.rounding import logits_allowance


def certified_radius(logits: Tensor, lipschitz: Tensor, *, rounding: Tensor | float | None = None) -> Tensor:
    """The l2 radius around each image within which its predicted class cannot change; 0 where the largest logits tie.

    Parameters
    ----------
    logits : (batch, classes), finite, in float32 or float64.
    lipschitz : (classes, classes), a constant of each difference of logits in units of the input
        (`Classifier.pairwise_lipschitz`), or () for one constant L of the logits as a vector: then the radius is
        margin / (sqrt(2) L).
    rounding : a bound of how far each difference of logits is off, a number or (classes, classes)
        (`stablenet.forward_error.logits`); it is subtracted from every margin. By default 1024 units roundoff of the logits'
        precision (6.1e-5 in float32), an allowance and no proof: `certified_predictions` has a proved one, and a smaller one.

    Returns (batch,) float64, in units of the image's pixels in [0, 1].

    Raises
    ------
    ValueError : shapes that do not match, NaN or infinite logits, logits in half precision or from a GPU that may round to
        TF32 (no `rounding` given), a negative constant.
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
    rounding = torch.as_tensor(_allowance(logits) if rounding is None else rounding, dtype=torch.float64).cpu()
    if rounding.shape not in ((), (classes, classes)) or not (rounding >= 0).all():
        raise ValueError(f"rounding must be a number or ({classes}, {classes}), >= 0, got {tuple(rounding.shape)}")
    logits = logits.detach().double().cpu()
    best = logits.argmax(1)
    margins = logits.gather(1, best[:, None]) - logits - (rounding[best] if rounding.ndim else rounding)
    constants = lipschitz[best] if lipschitz.ndim else (math.sqrt(2) * lipschitz).expand_as(margins)
    radii = margins / constants.clamp_min(1e-300)
    radii.scatter_(1, best[:, None], math.inf)
    # one unit in the last place for each subtraction and the division, so that the radius is never overstated
    return (radii.amin(1) * (1 - 1e-15)).clamp_min(0.0)


def _allowance(logits: Tensor) -> float:
    if logits.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"logits in {logits.dtype} certify nothing: compute them in float32 or float64, without autocast")
    tf32 = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    if logits.is_cuda and logits.dtype == torch.float32 and tf32:
        raise ValueError(
            "logits from this GPU may be rounded to TF32, three decimals: take certified_predictions, or set "
            "torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32 to False and compute them again"
        )
    return logits_allowance(torch.finfo(logits.dtype).eps / 2)


@torch.inference_mode()
def certified_predictions(network: nn.Module, images: Tensor, *, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """(predictions, certified l2 radii), (batch,) each, on the CPU, of the network in exact arithmetic.

    Computed in float64 whatever the precision of the weights, minus a proved bound of what rounding does there, so that both
    hold of the exact network. A pass in float32 may predict another class where the radius is below its own error.

    Parameters
    ----------
    network : a `Classifier` in evaluation mode, or another module with `pairwise_lipschitz()`; without a rule in
        `stablenet.forward_error.logits` of its own the allowance of `certified_radius` stands for the proof.
    images : (batch, channels, height, width), as the network takes them.

    Raises
    ------
    NotCertified : the network has no certificate. ValueError : images of another shape, NaN or infinity.
    """
    exact = in_double(network)
    place = next(exact.parameters())
    with torch.autocast(place.device.type, enabled=False):
        logits = torch.cat([exact(part.to(place)).cpu() for part in images.split(batch_size)])
    rounding = None
    if type(network) is Classifier:
        largest = max(float((part.double() - 0.5).flatten(1).norm(dim=1).max()) for part in images.split(batch_size))
        rounding = forward_error.difference_errors(cast(Classifier, exact), norm=largest * (1 + 1e-12))
    elif forward_error.logits.covers(network):
        rounding = forward_error.logits.of(exact)
    return logits.argmax(1), certified_radius(logits, cast(Classifier, exact).pairwise_lipschitz(), rounding=rounding)


def in_double(network: nn.Module) -> nn.Module:
    """A copy in float64 and evaluation mode, on the CPU where the device has no float64."""
    exact = copy.deepcopy(network).eval().requires_grad_(False)
    if next(exact.parameters()).device.type == "mps":
        exact = exact.cpu()
    return exact.double()


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
