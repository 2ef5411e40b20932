"""A denoiser that is averaged by construction, at every image size and noise level.

Source: gradient-flow blocks [Sherry2024]; anchoring D_(k+1) = (1 - a_k) T_k(D_k) + a_k I keeps averagedness at any
depth (docs/theorems.md, C6); conditioning by the perspective s sigma(./s) keeps the slopes (T5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet.activations import LinearSpline
from stablenet.blocks.gradient_flow import GradientFlow
from stablenet.certificate import IDENTITY, Certificate, CertificateTree, NotCertified, certify, mix, rule
from stablenet.enforcement import Policy, Rescale, enforce
from stablenet.interlayers import IsometricLift
from stablenet.linear import Conv2d, PolyphaseConv2d
from stablenet.linear.spreading import one_thread_a_kernel
from stablenet.rules import require_unaltered
from stablenet.tableaus import EULER, ButcherTableau

INITIAL_ANCHOR = 0.15
INITIAL_LOG_SCALE = -4.2
"""Of thresholds: blocks in sequence remove 1/a times what one removes, about two noise deviations in all."""
KNOTS = (0.0, 5 / 255, 15 / 255, 25 / 255, 35 / 255, 50 / 255)


@dataclass(frozen=True)
class DenoiserArchitecture:
    """The shape of a `Denoiser`.

    Parameters
    ----------
    channels : of the image, 1 (gray) or 3 (color).
    features : outputs of each block's A, per pixel.
    kernel_size : of A on the image; 3, 7, 11, ... with scale 2 run as polyphase convolutions.
    blocks : how many.
    segments : of the learned spline activations.
    scale : of the pixel-unshuffle lift (1 or 2); extra_channels : zero channels that the lift adds.
    averagedness : the alpha that the network keeps, in (0, 1); 0.5 makes it firmly nonexpansive.
    anchored : blocks pulled back to the input (any depth keeps alpha); otherwise a plain composition, relaxed.
    max_noise_level : the largest standard deviation it is conditioned on, for images in [0, 1].
    """

    channels: int = 1
    features: int = 48
    kernel_size: int = 7
    blocks: int = 8
    segments: int = 6
    scale: int = 2
    extra_channels: int = 0
    averagedness: float = 0.9
    anchored: bool = True
    max_noise_level: float = 50 / 255
    tableau: ButcherTableau = EULER
    policy: Policy = Rescale()

    def __post_init__(self) -> None:
        for name in ("channels", "features", "kernel_size", "blocks", "segments", "scale"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a positive integer, got {getattr(self, name)!r}")
        if not 0 < self.averagedness < 1:
            raise ValueError(f"averagedness must lie in (0, 1), got {self.averagedness}: 0.5 is firmly nonexpansive")
        if not 0 < self.max_noise_level <= 1:
            raise ValueError(f"max_noise_level must lie in (0, 1] for images in [0, 1], got {self.max_noise_level}")


class Denoiser(nn.Module):
    """D(x, sigma), averaged in x for each sigma; D(., 0) is the identity up to rounding.

    forward(x, sigma): x of shape (batch, channels, height, width), an image in [0, 1] plus noise; sigma its standard
    deviation in [0, max_noise_level], a float or a tensor of shape (batch,). Returns the same shape.

    Raises
    ------
    ValueError : x has another shape, channel count or dtype, is empty, holds NaN or infinity; sigma is missing, out of
        range, or of a shape that does not match the batch.
    """

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
        linear = (PolyphaseConv2d if polyphase else Conv2d)(inputs, a.features, a.kernel_size)
        with torch.no_grad():
            linear.weight.copy_(_initial_frame(a, linear.weight))
        spline = LinearSpline(a.features, segments=a.segments)
        return GradientFlow(linear, spline, tableau=a.tableau, policy=a.policy, bias=False)

    @property
    def channels(self) -> int:
        return self.architecture.channels

    @property
    def max_noise_level(self) -> float:
        return self.architecture.max_noise_level

    def anchor_weights(self) -> Tensor:
        """a_k at each knot of the noise level, (blocks, knots) in (0, 1); the last block's at least 1 - averagedness."""
        floor = torch.zeros(len(self.blocks), 1, device=self.anchors.device, dtype=torch.float64)
        floor[-1] = 1 - self.architecture.averagedness + 1e-6
        return floor + (1 - floor) * torch.sigmoid(self.anchors.double())

    @torch.no_grad()
    def grown(self, architecture: DenoiserArchitecture) -> Denoiser:
        """A deeper or wider-reaching denoiser that starts close to this one: where to begin training a large network.

        Each block becomes blocks/self.blocks of them, with thresholds divided and anchors composed alike; kernels are
        padded with zeros; the last anchor moves to its new floor where the averagedness changed.

        Raises
        ------
        ValueError : blocks is no multiple, kernels would shrink, or channels, features, segments, scale, extra channels,
            anchoring or the largest noise level differ.
        """
        old, new = self.architecture, architecture
        fixed = ("channels", "features", "segments", "scale", "extra_channels", "anchored", "max_noise_level")
        changed = [f"{n} {getattr(old, n)} -> {getattr(new, n)}" for n in fixed if getattr(old, n) != getattr(new, n)]
        margin, rest = divmod(new.kernel_size - old.kernel_size, 2)
        # at scale 2 some sizes run as polyphase convolutions, with kernels of another shape
        alike = old.scale != 2 or (old.kernel_size - new.kernel_size) % 4 == 0
        if changed or new.blocks % old.blocks or margin < 0 or rest or not (old.anchored and alike):
            raise ValueError(
                f"cannot grow {old.blocks} blocks with kernels of {old.kernel_size} to {new.blocks} with {new.kernel_size}: "
                "blocks must be a multiple, kernels larger by an even number (at scale 2 from 7 to 11, 15, ...), the blocks "
                "anchored, the rest the same" + (f"; different: {', '.join(changed)}" if changed else "")
            )
        copies = new.blocks // old.blocks
        grown = Denoiser(new).to(self.log_scales)
        grown.log_scales.copy_((self.log_scales - math.log(copies)).repeat_interleave(copies, 0))
        anchors = 1 - (1 - self.anchor_weights()).pow(1 / copies).repeat_interleave(copies, 0)
        floor = 1 - new.averagedness
        anchors[-1] = ((anchors[-1] - floor) / (1 - floor)).clamp(min=1e-3)
        grown.anchors.copy_(torch.logit(anchors, eps=1e-6))
        for k, block in enumerate(grown.blocks):
            source = self.blocks[k // copies]
            block.linear.weight.copy_(functional.pad(source.linear.weight, [margin] * 4))
            block.activation.logits.copy_(source.activation.logits)
        enforce(grown, certified=True)
        return grown.train(self.training)

    def forward(self, x: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        self._check(x)
        levels = self._noise_levels(sigma, x)
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.device.type != "cpu":
            return self._restored(x, levels)
        with one_thread_a_kernel():  # the strips of the blocks have the threads
            return self._restored(x, levels)

    def _restored(self, x: Tensor, levels: Tensor) -> Tensor:
        size = (x.shape[-2], x.shape[-1])
        weights = self._interpolation(levels)
        origin = self.lift(x - 0.5).contiguous(memory_format=torch.channels_last)
        scales = (levels + 1e-7)[:, None] * torch.exp(_interpolate(weights[..., None], self.log_scales))
        scales = self.blocks[0].linear.expand(scales)[..., None, None]
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

    def _interpolation(self, levels: Tensor) -> Tensor:
        """(batch, knots): the weights of linear interpolation between the knots of the noise level."""
        right = torch.searchsorted(self.knots, levels, right=True).clamp_(1, len(self.knots) - 1)
        low, high = self.knots[right - 1], self.knots[right]
        part = ((levels - low) / (high - low)).clamp(0, 1)[:, None]
        rows = torch.arange(len(self.knots), device=levels.device)
        return (rows == right[:, None] - 1) * (1 - part) + (rows == right[:, None]) * part

    def _check(self, x: Tensor) -> None:
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != self.channels or x.numel() == 0:
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"x must have shape (batch, {self.channels}, height, width), not empty; got {shape}")
        if x.dtype != self.log_scales.dtype:
            raise ValueError(
                f"x has dtype {x.dtype} but the weights are {self.log_scales.dtype}: scale images to [0, 1] and convert x with "
                f".to({self.log_scales.dtype}), or the network with .to({x.dtype})"
            )
        if not self.training and not torch.isfinite(x.sum()):
            raise ValueError("x holds NaN or infinity: check the measurement or the step that produced it")

    def _noise_levels(self, sigma: float | Tensor | None, x: Tensor) -> Tensor:
        if sigma is None:
            raise ValueError("sigma, the noise level, is missing: a standard deviation for images in [0, 1], as 25/255")
        levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1)
        if levels.numel() not in (1, len(x)):
            raise ValueError(f"sigma must be a number or hold one per image ({len(x)}), got {levels.numel()} values")
        low, high = float(levels.min()), float(levels.max())
        if not (low >= 0 and high <= self.max_noise_level * (1 + 1e-6)):
            raise ValueError(
                f"sigma must lie in [0, {self.max_noise_level:.4g}] for images in [0, 1], got {low:.4g} to {high:.4g}; a noise "
                "level given for images in [0, 255] must be divided by 255"
            )
        return levels.expand(len(x)).contiguous()


def _interpolate(weights: Tensor, table: Tensor) -> Tensor:
    """(blocks, batch, ...) from weights (batch, knots, ...) and a table (blocks, knots, ...).

    A sum of products, as a matrix product would be rounded to bf16 under autocast.
    """
    return (weights * table[:, None]).sum(2)


def _initial_frame(a: DenoiserArchitecture, weight: Tensor) -> Tensor:
    """The kernels to start from: cosines without the constant, |A|^2 = 1.85, plus small noise that tells blocks apart.

    With the noise and the excess of the certified bound z stays below 2: networks are nonexpansive before any `enforce`.

    All non-constant cosines of one size form a tight frame, so that the constraint wastes nothing at any frequency.
    Color takes the largest size that fits for luminance and the next for the two color differences.
    """
    side = a.kernel_size * (1 if weight.shape[1] == a.channels else a.scale)
    noise = 0.02 * torch.randn_like(weight) / math.sqrt(weight[0].numel())
    atoms = [] if a.extra_channels else [*_atoms(a.channels, a.features, side)]
    if not atoms:
        return 10 * noise
    atoms = torch.cat(atoms)
    if weight.shape[1] != a.channels:
        r, k = a.scale, a.kernel_size
        shape = (len(atoms), a.channels, k, r, k, r)
        atoms = r * atoms.reshape(shape).permute(0, 1, 3, 5, 2, 4).reshape(len(atoms), *weight.shape[1:])
    noise[: len(atoms)] += 1.36 * atoms
    return noise


def _atoms(channels: int, features: int, side: int) -> Iterator[Tensor]:
    """Tight frames of norm 1, (count, channels, side, side), one a color axis, as many as fit."""
    axes = torch.eye(channels)
    if channels == 3:
        axes = functional.normalize(torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]]))
    left = features
    for i, axis in enumerate(axes):
        share = left if len(axes) - i == 1 else (left + 1) // 2 if i == 0 else left // (len(axes) - i)
        n = min(side, math.isqrt(share + 1))
        n -= (side - n) % 2
        if n < 2:
            continue
        grid = (torch.arange(n) + 0.5) * (math.pi / n)
        waves = functional.normalize(torch.cos(torch.arange(n)[:, None] * grid))
        order = sorted((i * i + j * j, i, j) for i in range(n) for j in range(n))[1:]
        atoms = torch.stack([waves[i][:, None] * waves[j] for _, i, j in order]) / n
        margin = (side - n) // 2
        atoms = functional.pad(atoms, [margin] * 4)
        left -= len(atoms)
        yield axis[:, None, None] * atoms[:, None]


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
        alphas = [end.averagedness for end in ends]
        total = Certificate(max(end.lipschitz for end in ends), None if None in alphas else max(alphas))
    reason = f"anchored to the input, a >= {min(smallest):.3g}, last a >= {smallest[-1]:.6g}"
    return CertificateTree("Denoiser", total.conjugate(), reason, trees)
