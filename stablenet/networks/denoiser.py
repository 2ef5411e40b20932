"""A denoiser that is averaged by construction, at every image size and noise level.

Source: gradient-flow blocks [Sherry2024]; anchoring D_(k+1) = (1 - a_k) T_k(D_k) + a_k I keeps averagedness at any
depth (docs/theorems.md, C6); conditioning by the perspective s sigma(./s) keeps the slopes (T5).
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from stablenet.activations import LinearSpline
from stablenet.blocks.gradient_flow import GradientFlow
from stablenet.certificate import IDENTITY, Certificate, CertificateTree, NotCertified, certify, mix, rule
from stablenet.enforcement import enforce
from stablenet.interlayers import IsometricLift
from stablenet.linear import Conv2d, PolyphaseConv2d
from stablenet.linear.spreading import one_thread_a_kernel
from stablenet.networks.architectures import DenoiserArchitecture
from stablenet.networks.checks import KNOTS, check_image, checked_levels, interpolation, is_recorded
from stablenet.networks.frame import initial_kernels
from stablenet.networks.growth import Growth, merged, reach, shares
from stablenet.rules import require_unaltered

INITIAL_ANCHOR = 0.15
INITIAL_LOG_SCALE = -4.2
"""Of thresholds: blocks in sequence remove 1/a times what one removes, about two noise deviations in all."""


class Denoiser(nn.Module):
    """D(x, sigma), averaged in x for each sigma; D(., 0) is the identity up to rounding.

    forward(x, sigma): x of shape (batch, channels, height, width), an image in [0, 1] plus noise; sigma its standard
    deviation in [0, max_noise_level], a float or a tensor of shape (batch,). Returns the same shape.

    Raises
    ------
    ValueError : x has another shape, channel count or dtype, is empty, holds NaN or infinity; sigma is missing, out of
        range, or of a shape that does not match the batch.
    """

    knots: Tensor

    def __init__(self, architecture: DenoiserArchitecture = DenoiserArchitecture()) -> None:  # noqa: B008 - frozen
        super().__init__()
        self.architecture = a = architecture
        self.lift = IsometricLift(a.scale, a.extra_channels)
        self.blocks = nn.ModuleList(self._block(a) for _ in range(a.blocks))
        inner = torch.full((a.blocks, len(KNOTS)), _logit(INITIAL_ANCHOR))
        self.anchors = nn.Parameter(inner) if a.anchored else None
        self.log_scales = nn.Parameter(torch.full((a.blocks, len(KNOTS), a.features), INITIAL_LOG_SCALE))
        self.register_buffer("knots", torch.tensor(KNOTS) * (a.max_noise_level / KNOTS[-1]), persistent=False)

    @staticmethod
    def _block(a: DenoiserArchitecture) -> GradientFlow:
        polyphase = a.scale == 2 and a.kernel_size % 4 == 3 and not a.extra_channels
        inputs = a.channels * (1 if polyphase else a.scale**2) + a.extra_channels
        linear: Conv2d | PolyphaseConv2d = (PolyphaseConv2d if polyphase else Conv2d)(inputs, a.features, a.kernel_size)
        with torch.no_grad():
            linear.weight.copy_(initial_kernels(a, linear.weight))
        spline = LinearSpline(a.features, segments=a.segments)
        return GradientFlow(linear, spline, tableau=a.tableau, policy=a.policy, bias=False)

    @property
    def channels(self) -> int:
        return self.architecture.channels

    @property
    def max_noise_level(self) -> float:
        return self.architecture.max_noise_level

    def flows(self) -> list[GradientFlow]:
        """The blocks, first to last."""
        return [cast(GradientFlow, block) for block in self.blocks]

    def anchor_weights(self) -> Tensor:
        """a_k at each knot of the noise level, (blocks, knots) in (0, 1); the last block's at least 1 - averagedness."""
        if self.anchors is None:
            raise ValueError("this denoiser is a relaxed composition: it has no anchors")
        floor = self._floor().to(self.anchors.device)
        return floor + (1 - floor) * torch.sigmoid(self.anchors.double())

    def _floor(self) -> Tensor:
        floor = torch.zeros(len(self.blocks), 1, dtype=torch.float64)
        floor[-1] = 1 - self.architecture.averagedness + 1e-6
        return floor

    @torch.no_grad()
    def grown(self, architecture: DenoiserArchitecture) -> Denoiser:
        """A deeper or wider-reaching denoiser that starts close to this one: where to begin training a large network.

        Each block becomes blocks/self.blocks of them, with thresholds divided and anchors composed alike; kernels are
        padded with zeros; the last anchor moves to its new floor where the averagedness changed. Certified enforcement follows.

        Raises
        ------
        ValueError : blocks is no multiple, kernels would shrink, or channels, features, segments, scale, extra channels,
            anchoring or the largest noise level differ.
        """
        growth = Growth.between(self.architecture, architecture)
        grown = Denoiser(architecture).to(self.log_scales)
        grown.log_scales.copy_(growth.log_scales(self.log_scales))
        if grown.anchors is not None:
            grown.anchors.copy_(growth.anchors(self.anchor_weights()))
        for k, block in enumerate(grown.flows()):
            source = self.flows()[k // growth.copies]
            block.linear.weight.copy_(growth.kernel(source.linear.weight))
            block.activation.load_state_dict(source.activation.state_dict())
        enforce(grown, certified=True)
        return grown.train(self.training)

    @torch.no_grad()
    def condensed(self, share: float = 0.02) -> Denoiser:
        """Without the blocks that take less than `share` of what all remove, at every knot: there the same, but faster.

        An anchor near 1 restarts from the input: what the blocks before it do is not seen. ValueError without anchors.
        """
        anchors = self.anchor_weights()
        slopes = torch.stack([cast(LinearSpline, block.activation).slopes for block in self.flows()])
        taken = shares(self.log_scales, slopes, anchors).amax(1)
        kept = [k for k, part in enumerate(taken.tolist()) if part >= share]
        other = Denoiser(replace(self.architecture, blocks=len(kept))).to(self.log_scales)
        other.blocks = nn.ModuleList(copy.deepcopy(self.blocks[k]) for k in kept)
        other.log_scales.copy_(self.log_scales[kept])
        other._set_anchors(merged(anchors, kept))
        return other.train(self.training)

    @torch.no_grad()
    def lowered(self, anchor: float) -> Denoiser:
        """A copy whose anchors but the last are `anchor` at most, with thresholds that remove as much of large features.

        Trained from large anchors, a deep denoiser works as its last few blocks. ValueError without anchors.
        """
        before, other = self.anchor_weights(), copy.deepcopy(self)
        after = before.clamp(max=anchor)
        after[-1] = before[-1]
        other._set_anchors(after)
        other.log_scales.add_((reach(before) / reach(after)).log()[..., None])
        return other

    def _set_anchors(self, weights: Tensor) -> None:
        """The inverse of `anchor_weights`; a last one below its floor is set to it."""
        floor = self._floor().to(weights)
        self.get_parameter("anchors").copy_(torch.logit((weights - floor) / (1 - floor), eps=1e-12))

    def forward(self, x: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        check_image(self, x, self.log_scales.dtype)
        levels = checked_levels(sigma, x, self.max_noise_level)
        if torch.compiler.is_compiling() or x.device.type != "cpu" or is_recorded(self, x, sigma):
            return self._restored(x, levels)
        with torch.no_grad(), one_thread_a_kernel():  # the strips of the blocks have the threads
            return self._restored(x, levels)

    def _restored(self, x: Tensor, levels: Tensor) -> Tensor:
        size = (x.shape[-2], x.shape[-1])
        weights = interpolation(levels, self.knots)
        origin = self.lift(x - 0.5).contiguous(memory_format=torch.channels_last)
        scales = (levels + 1e-7)[:, None] * torch.exp(_interpolate(weights[..., None], self.log_scales))
        scales = self.flows()[0].linear.expand(scales)[..., None, None]
        if self.anchors is None:
            current = origin
            for block, scale in zip(self.blocks, scales, strict=True):
                current = block(current, scale)
            current = torch.lerp(origin, current, self.architecture.averagedness)
        else:
            anchors = _interpolate(weights, self.anchor_weights().to(x.dtype))[..., None, None, None]
            current = origin
            for block, scale, anchor in zip(self.blocks, scales, anchors, strict=True):
                current = torch.lerp(block(current, scale), origin, anchor)
        return self.lift.adjoint(current, size) + 0.5


def _interpolate(weights: Tensor, table: Tensor) -> Tensor:
    """(blocks, batch, ...) from weights (batch, knots, ...) and a table (blocks, knots, ...).

    A sum of products, as a matrix product would be rounded to bf16 under autocast.
    """
    return (weights * table[:, None]).sum(2)


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


@rule(Denoiser)
def _certify(denoiser: Denoiser) -> CertificateTree:
    if type(denoiser.lift) is not IsometricLift or type(denoiser.architecture) is not DenoiserArchitecture:
        raise NotCertified(f"a Denoiser with lift {denoiser.lift!r} and {denoiser.architecture!r} has no proof")
    require_unaltered(denoiser.lift, NotCertified)
    require_unaltered(denoiser.blocks, NotCertified)
    trees = tuple(certify(block) for block in denoiser.blocks)
    total, a = IDENTITY, denoiser.architecture
    if denoiser.anchors is None:
        for tree in trees:
            total = total.then(tree.certificate)
        total = total.relax(a.averagedness)
        return CertificateTree("Denoiser", total.conjugate(), f"composition, relaxed by {a.averagedness:g}", trees)
    smallest = denoiser.anchor_weights().amin(1).tolist()
    largest = denoiser.anchor_weights().amax(1).tolist()
    for tree, low, high in zip(trees, smallest, largest, strict=True):
        step = total.then(tree.certificate)
        # Lipschitz and alpha are affine in the anchor weight: the worse end of its range over the noise levels
        ends = [mix([step, IDENTITY], [1 - weight, weight]) for weight in (low, high)]
        alphas = [end.averagedness for end in ends if end.averagedness is not None]
        total = Certificate(max(end.lipschitz for end in ends), max(alphas) if len(alphas) == len(ends) else None)
    reason = f"anchored to the input, a >= {min(smallest):.3g}, last a >= {smallest[-1]:.6g}"
    return CertificateTree("Denoiser", total.conjugate(), reason, trees)
