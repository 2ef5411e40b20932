"""How far the rounding of a forward pass can move the logits of a classifier: a bound in the standard model of arithmetic.

Source: docs/theorems.md, R1; an inner product of length n is off by at most gamma_n |w| |x| in any order of summation
[Higham2002, section 3.1]. Layers add c |x| each, and what comes before is carried on by their Lipschitz constants.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from stablenet import spectral
from stablenet.activations import smoothness
from stablenet.blocks.flow import Flow, RungeKutta
from stablenet.blocks.gradient_flow import GradientFlow
from stablenet.butcher import Number
from stablenet.certificate import NotCertified, certify
from stablenet.interlayers import ChannelTruncation, MaxMin, NormPool2d, ZeroChannelLift
from stablenet.linear import Conv1d, Conv2d, Conv3d, Dense
from stablenet.networks.classifier import Classifier
from stablenet.rounding import FAST_CONVOLUTION, dot_product_margin
from stablenet.rules import Rules

LayerError = Callable[[float, torch.Size, float], float]
"""(bound of |x|_2, shape of x, unit roundoff) -> bound of |fl(T)(x) - T(x)|_2 for one image."""

layer: Rules[LayerError] = Rules(
    "rounding bound",
    NotCertified,
    "known are {known}; register another with @stablenet.forward_error.layer({name})",
)
logits: Rules[Tensor] = Rules(
    "rounding bound of logits",
    NotCertified,
    "known are {known}; register another with @stablenet.forward_error.logits({name})",
)
"""(classes, classes): by how much rounding can move each difference of logits, for images in [0, 1]."""


@logits(Classifier)
def difference_errors(classifier: Classifier, *, norm: float | None = None) -> Tensor:
    """(classes, classes) float64: |fl(f_i - f_j) - (f_i - f_j)| at images x with |x - 1/2|_2 <= norm (by default those in
    [0, 1]), in the precision of the weights, rows of the head as that precision normalizes them.

    Raises
    ------
    NotCertified : a layer without a bound.
    """
    a, unit = classifier.architecture, _unit(classifier.head.weight.dtype)
    norm = math.sqrt(a.channels * a.height * a.width) / 2 if norm is None else norm
    x = classifier.head.weight.new_zeros(1, a.channels, a.height, a.width)
    point, error, lipschitz = classifier.lift(x), unit * norm, 1.0
    with torch.no_grad():
        for module in classifier.body:
            # |x_k| <= |z_k| + Lip |x - 1/2|, where z_k is what the gray image 1/2 becomes; both are off by their errors
            size = float(point.norm()) + lipschitz * norm + 2 * error
            own = certify(module).lipschitz
            error = own * error + layer.of(module)(size, point.shape, unit)
            point, lipschitz = module(point), lipschitz * own
    size = float(point.norm()) + lipschitz * norm + 2 * error + float(classifier.head.bias.detach().abs().max())
    last = 2 * dot_product_margin(classifier.head.weight.shape[1] + 1, unit) * size
    # 1.001: rows of norm 1 up to their own rounding, and the arithmetic of this bound
    return 1.001 * (classifier.head.pairwise_lipschitz() * error + last * (1 - torch.eye(a.classes)))


def _unit(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2


@layer(Flow, GradientFlow)
def _flow(block: RungeKutta) -> LayerError:
    """The steps of a Runge-Kutta method, each as the tableau says, on norms instead of vectors."""
    if type(block.activation) is not nn.ReLU:
        raise NotCertified(f"no rounding bound for a block with {type(block.activation).__name__}: only ReLU is exact")
    schedule, tableau = block.schedule_in_evaluation(), block.tableau
    step_size, steps = schedule.step_size, schedule.steps
    norm_of_a = block.spectral_norm_bound()
    z = step_size * smoothness(block.activation) * norm_of_a**2
    lipschitz = tableau.lipschitz(z)
    field = _field_error(block, norm_of_a)

    def weigh(row: Sequence[Number], sizes: list[float]) -> float:
        return step_size * sum(abs(float(a)) * k for a, k in zip(row, sizes, strict=False))

    def step(size: float, bias: float, unit: float) -> tuple[float, float]:
        """(error of one step, h sum_i |b_i| |k_i|) at a point of norm `size`."""
        additions = dot_product_margin(tableau.stages + 5, unit)  # and the roundings of h a_ij
        sizes: list[float] = []
        errors: list[float] = []
        for row in tableau.a:
            here = size + weigh(row, sizes)
            off = weigh(row, errors) + additions * here
            wrong, large = field((1 + additions) * here, bias, unit)
            sizes.append(large)
            errors.append(norm_of_a**2 * off + wrong)
        moved = weigh(tableau.b, sizes)
        return weigh(tableau.b, errors) + additions * (size + moved), moved

    def error(size: float, shape: torch.Size, unit: float) -> float:
        bias = 0.0 if block.bias is None else float(block.bias.detach().norm()) * math.sqrt(math.prod(shape[2:]))
        from_zero, total = step(0.0, bias, unit)[1], 0.0
        for _ in range(steps):
            local, _ = step(size, bias, unit)
            total = lipschitz * total + local
            size = lipschitz * size + from_zero + local
        return total

    return error


def _field_error(block: RungeKutta, norm_of_a: float) -> Callable[[float, float, float], tuple[float, float]]:
    """(|x|, |b|, unit) -> (|fl(k) - k|, |fl(k)|) of k = A^T relu(A x + b)."""
    linear = cast(nn.Module, block.linear)
    if type(linear) not in (Dense, Conv1d, Conv2d, Conv3d):
        raise NotCertified(f"no rounding bound for a block over {type(linear).__name__}")
    absolute = copy.deepcopy(linear).requires_grad_(False)
    absolute.get_parameter("weight").abs_()
    norm_of_absolute = spectral.upper_bound(absolute)
    weight, factor = linear.get_parameter("weight"), 1 if type(linear) is Dense else FAST_CONVOLUTION
    there, back = weight[0].numel(), math.prod((weight.shape[0], *weight.shape[2:]))

    def error(size: float, bias: float, unit: float) -> tuple[float, float]:
        first = factor * dot_product_margin(there + 1, unit) * (norm_of_absolute * size + bias)
        features = norm_of_a * size + bias + first
        second = factor * dot_product_margin(back, unit) * norm_of_absolute * features
        return norm_of_a * first + second, norm_of_a * features + second

    return error


@layer(NormPool2d)
def _pool(module: NormPool2d) -> LayerError:
    return lambda size, shape, unit: dot_product_margin(module.size**2 + 2, unit) * size


@layer(MaxMin, ZeroChannelLift, ChannelTruncation, nn.Flatten, nn.PixelUnshuffle, nn.PixelShuffle, nn.Identity, nn.ReLU)
def _exact(module: nn.Module) -> LayerError:
    return lambda size, shape, unit: 0.0
