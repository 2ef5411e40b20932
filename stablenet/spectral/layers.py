"""The norm bounds of torch's own linear layers, by exact class, with their weights held against their settings.

Source: docs/theorems.md, N1; torch pads a circular convolution by what it fixed at construction, not by `padding`.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from stablenet.spectral.bounds import UnboundedError, bound, convolution_upper_bound, linear_function, matrix_upper_bound
from stablenet.spectral.power import LinearFunction

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def require_shape(module: nn.Module, weight: torch.Tensor, expected: tuple[int, ...]) -> None:
    """Refuse a weight of another shape than the settings of its module say.

    Raises
    ------
    UnboundedError : naming both shapes.
    """
    if tuple(weight.shape) != expected:
        raise UnboundedError(
            f"the weight of {type(module).__name__} has shape {tuple(weight.shape)} where its settings say {expected}: "
            "build the module anew with the right settings"
        )


@bound(nn.Linear)
def _linear(module: nn.Linear) -> float:
    require_shape(module, module.weight, (module.out_features, module.in_features))
    return matrix_upper_bound(module.weight)


@bound(*CONVOLUTIONS)
def _convolution(module: _ConvNd) -> float:
    kernel = tuple(module.kernel_size)
    require_shape(module, module.weight, (module.out_channels, module.in_channels // module.groups, *kernel))
    if module.padding_mode not in ("zeros", "circular"):
        raise UnboundedError(
            f"{type(module).__name__} has padding_mode={module.padding_mode!r}: no bound is proved for it; use 'zeros' or "
            "'circular'"
        )
    circular = module.padding_mode == "circular"
    if circular:
        _require_within_reach(module)
    return convolution_upper_bound(
        module.weight, stride=module.stride, dilation=module.dilation, groups=module.groups, circular=circular
    )


def _require_within_reach(module: _ConvNd) -> None:
    """Circular padding beyond the kernel's reach repeats outputs. What counts is what torch fixed at construction."""
    fixed = list(module._reversed_padding_repeated_twice)  # last axis first, before and after
    totals = [before + after for before, after in zip(fixed[::2], fixed[1::2], strict=True)][::-1]
    reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    if any(total > most for total, most in zip(totals, reach, strict=True)):
        raise UnboundedError(
            f"circular padding of {tuple(totals)} in all is wider than the reach {tuple(reach)} of "
            f"kernel_size={tuple(module.kernel_size)}, which repeats outputs; build the layer anew with padding='same'"
        )


@bound(*TRANSPOSED)
def _transposed(module: _ConvNd) -> float:
    """weight (in, out / groups, *kernel) is the kernel of the adjoint, a convolution from out to in channels."""
    kernel = tuple(module.kernel_size)
    require_shape(module, module.weight, (module.in_channels, module.out_channels // module.groups, *kernel))
    return convolution_upper_bound(module.weight, stride=module.stride, dilation=module.dilation, groups=module.groups)


@linear_function(nn.Linear)
def _linear_function(module: nn.Linear) -> tuple[LinearFunction, tuple[int, ...]]:
    return _without_bias(module), (module.in_features,)


@linear_function(*CONVOLUTIONS, *TRANSPOSED)
def _convolution_function(module: _ConvNd) -> tuple[LinearFunction, tuple[int, ...]]:
    return _without_bias(module), (module.in_channels, *[32] * len(module.kernel_size))


def _without_bias(module: nn.Linear | _ConvNd) -> nn.Module:
    frozen = copy.deepcopy(module).double().requires_grad_(False)
    if frozen.bias is not None:
        frozen.bias.zero_()
    return frozen
