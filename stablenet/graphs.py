"""Networks as graphs that other runtimes can run: tensors in, tensors out, any batch and image size, nothing raised.

Source: docs/theorems.md, R4. The same maps in operations that ONNX Runtime has for the precision and for unknown sizes.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet.blocks.flow import Flow, plain_form
from stablenet.forward_error import difference_errors
from stablenet.interlayers import IsometricLift, NormPool2d
from stablenet.linear import Conv2d
from stablenet.networks.classifier import Classifier
from stablenet.networks.denoiser import Denoiser
from stablenet.networks.symmetrized import Symmetrized


def plain(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode, frozen, each block in its plain form: no policy, nothing that follows a norm, no hook.

    Same outputs and same certificate.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if plain_form.covers(child):
                setattr(parent, name, plain_form.of(child))
    return plain_form.of(network) if plain_form.covers(network) else network


class WithRadius(nn.Module):
    """images (batch, channels, height, width) in [0, 1] -> (logits, radius), (batch, classes) and (batch,).

    Inside, everything is float64; logits and radius leave in the precision of the weights. radius is the certified l2 radius of
    the logits that leave, less their rounding and that of the pass (`forward_error`), rounded down; 0 where the largest tie.
    """

    constants: Tensor
    rounding: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.dtype = classifier.head.weight.dtype
        self.network = _unfolded(plain(classifier).double())
        self.unit = 0.0 if self.dtype == torch.float64 else torch.finfo(self.dtype).eps / 2 * 1.001
        self.shrink = 1 - 1e-15 - 4 * self.unit
        exact = copy.deepcopy(classifier).double()
        self.register_buffer("constants", exact.pairwise_lipschitz().clamp_min(1e-300))
        self.register_buffer("rounding", difference_errors(exact))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(images.double()).to(self.dtype)
        wide = logits.double()
        values, best = wide.max(1, keepdim=True)
        margins = values - wide - self.unit * (values.abs() + wide.abs()) - self.rounding[best[:, 0]]
        others = torch.arange(wide.shape[1], device=wide.device) != best
        radii = torch.where(others, margins / self.constants[best[:, 0]], torch.inf).amin(1)
        return logits, (radii.clamp(min=0.0) * self.shrink).to(self.dtype)


class WithLevels(nn.Module):
    """(x, sigma) -> the denoised images: x (batch, channels, height, width), sigma (batch,), clamped to the range it is for.

    network : a denoiser, with a certificate for every sigma in that range, which thus holds whatever is fed.
    """

    def __init__(self, network: Denoiser | Symmetrized) -> None:
        super().__init__()
        self.network, self.highest = plain(network), float(network.max_noise_level)
        for part in self.network.modules():
            if isinstance(part, Denoiser):  # only here is its lift another than the one its certificate speaks of
                lift = _ConvolvedLift(vars(part).pop("lift"), part.channels)
                part.add_module("lift", lift.to(part.log_scales))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        denoised: Tensor = self.network(x, sigma.clamp(0.0, self.highest))
        return denoised


class _ConvolvedLift(nn.Module):
    """An `IsometricLift` as a strided convolution with unit vectors: exact in every precision, no remainders of sizes."""

    kernel: Tensor

    def __init__(self, lift: IsometricLift, channels: int) -> None:
        super().__init__()
        self.scale, self.extra, self.channels = lift.scale, lift.extra_channels, channels
        unit_vectors = torch.eye(self.scale**2).reshape(-1, 1, self.scale, self.scale)
        self.register_buffer("kernel", unit_vectors.repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.scale > 1:
            padded = functional.pad(x, (0, self.scale - 1, 0, self.scale - 1))
            x = functional.conv2d(padded, self.kernel, stride=self.scale, groups=self.channels)
        return functional.pad(x, (0, 0, 0, 0, 0, self.extra)) if self.extra else x

    def adjoint(self, y: Tensor, size: tuple[int, int]) -> Tensor:
        y = y[:, : self.channels * self.scale**2]
        if self.scale > 1:
            y = functional.conv_transpose2d(y, self.kernel, stride=self.scale, groups=self.channels)
        rows, columns = (torch.arange(n, device=y.device) for n in size)
        return y.index_select(2, rows).index_select(3, columns)


class _UnfoldedConv2d(nn.Module):
    """A `Conv2d` with stride 1 and zero padding as a matrix product of patches: ONNX Runtime has no float64 convolution."""

    def __init__(self, convolution: Conv2d) -> None:
        super().__init__()
        self.weight, self.kernel_size = convolution.weight, convolution.kernel_size
        self.inputs, self.outputs, self.strips = convolution.inputs, convolution.outputs, None

    def kernel(self, weight: Tensor) -> Tensor:
        return weight

    def expand(self, values: Tensor) -> Tensor:
        return values

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        weight = self.weight if weight is None else weight
        patches = functional.unfold(x, self.kernel_size, padding=self.kernel_size // 2)
        y = weight.flatten(1) @ patches
        y = y if bias is None else y + bias[:, None]
        return y.reshape(x.shape[0], weight.shape[0], x.shape[2], x.shape[3])

    def adjoint(self, y: Tensor, size: object = None, weight: Tensor | None = None) -> Tensor:
        weight = self.weight if weight is None else weight
        return self.forward(y, weight.transpose(0, 1).flip(2, 3))


class _SummedPool(nn.Module):
    """`NormPool2d` as a plain sum: ONNX Runtime has no float64 pooling."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        cells = x.unflatten(3, (-1, self.size)).unflatten(2, (-1, self.size))
        return cells.sum((3, 5)) / self.size


def _unfolded(network: nn.Module) -> nn.Module:
    """The network, its convolutions and pools in operations that ONNX Runtime has in float64."""
    for part in list(network.modules()):
        if isinstance(part, Flow) and type(part.linear) is Conv2d:
            part.add_module("linear", _UnfoldedConv2d(part.linear))
        for name, child in list(part.named_children()):
            if type(child) is NormPool2d:
                setattr(part, name, _SummedPool(child.size))
    return network
