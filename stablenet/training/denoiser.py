"""The denoiser's frozen recipe: command line, checkpoint header and card are this one dataclass."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset

from stablenet.activations import fuse
from stablenet.bundled import weights_path
from stablenet.evaluation import evaluate
from stablenet.images.photographs import add_noise, random_patches
from stablenet.networks.denoiser import Denoiser, DenoiserArchitecture
from stablenet.training.loop import Record, Schedule, fit
from stablenet.training.records import logged
from stablenet.weights import load


@dataclass(frozen=True)
class DenoiserRecipe:
    """Everything that determines a trained denoiser, data aside.

    The loss is the mean over a batch of mean((D(y, s) - x)^2) / (s + 2/255)^weight_power, with s uniform in
    [0, max_noise_level] (or always `noise_level`).
    """

    channels: int = 1
    features: int = 48
    kernel_size: int = 7
    blocks: int = 8
    segments: int = 6
    scale: int = 2
    averagedness: float = 0.9
    anchored: bool = True
    max_noise_level: float = 50 / 255
    noise_level: float | None = None
    """Train at this level alone instead of all levels up to the largest."""
    start: str | None = None
    """Weights to grow from, a shipped name or a path (`Denoiser.grown`); none: a tight frame of cosines."""
    patch_size: int = 48
    margin: int = 0
    """Pixels next to a patch's border that the loss leaves out: there the zero padding rules, unlike in a large image."""
    batch_size: int = 16
    stratified: bool = False
    """Draw one noise level from each of batch_size equal parts of the range, which steadies small batches."""
    weight_power: float = 1.5
    seed: int = 0
    precision: str = "bf16-mixed"
    """32-true, or bf16-mixed: convolutions in bf16, images and weights kept in float32."""
    schedule: Schedule = field(default_factory=lambda: Schedule(steps=20000))

    def __post_init__(self) -> None:
        if self.patch_size < 8 or self.batch_size < 1:
            raise ValueError(f"patch_size must be >= 8 and batch_size >= 1, got {self.patch_size}, {self.batch_size}")
        if not 0 <= 2 * self.margin < self.patch_size:
            raise ValueError(f"margin must be >= 0 and below half the patch_size {self.patch_size}, got {self.margin}")
        if self.noise_level is not None and not 0 < self.noise_level <= self.max_noise_level:
            raise ValueError(f"noise_level must lie in (0, {self.max_noise_level:.4g}], got {self.noise_level}")
        if self.precision not in ("32-true", "bf16-mixed"):
            raise ValueError(f"precision must be '32-true' or 'bf16-mixed', got {self.precision!r}")
        self.architecture  # noqa: B018 - validates

    @property
    def architecture(self) -> DenoiserArchitecture:
        names = ("channels", "features", "kernel_size", "blocks", "segments", "scale", "averagedness", "anchored")
        return DenoiserArchitecture(**{n: getattr(self, n) for n in names}, max_noise_level=self.max_noise_level)

    def noise_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) standard deviations for one batch."""
        if self.noise_level is not None:
            return torch.full((count,), self.noise_level)
        level = torch.rand(count, generator=generator)
        return self.max_noise_level * ((level + torch.arange(count)) / count if self.stratified else level)

    def loss(self, restored: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        """The weighted square error over the inside of the patches; images (batch, channels, size, size), level (batch,)."""
        inner = slice(self.margin, clean.shape[-1] - self.margin)
        error = (restored - clean)[..., inner, inner].square().mean((1, 2, 3))
        return (error / (level + 2 / 255) ** self.weight_power).mean()

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> DenoiserRecipe:
        values = json.loads(text)
        return replace(DenoiserRecipe(), **{**values, "schedule": Schedule(**values["schedule"])})


def initial(recipe: DenoiserRecipe) -> Denoiser:
    """The network that training begins with.

    Raises
    ------
    ValueError : the weights to start from are missing, refused, or of a shape that cannot grow to the recipe's.
    """
    if recipe.start is None:
        return Denoiser(recipe.architecture)
    return load(weights_path(recipe.start), kind="denoiser").grown(recipe.architecture).requires_grad_(True)


def train(
    recipe: DenoiserRecipe,
    dataset: Dataset,
    validation: Dataset,
    folder: Path,
    *,
    fabric: Fabric | None = None,
    fused: bool = True,
    model: nn.Module | None = None,
) -> Iterator[tuple[Record, nn.Module]]:
    """Train a denoiser, yielding (record, averaged denoiser) a step; checkpoints and log.csv go to `folder`.

    `model` replaces the network of the recipe by any module with `channels` and the same call, for comparisons.

    Raises
    ------
    ValueError : images smaller than the patch, a checkpoint of another recipe, a NaN loss.
    """
    fabric = fabric or Fabric(accelerator="auto", devices=1)
    fabric.launch()
    torch.manual_seed(recipe.seed)
    model = initial(recipe) if model is None else model
    fuse(model, fused and _can_compile())

    def loss(network: nn.Module, generator: torch.Generator) -> Tensor:
        clean = random_patches(
            dataset, count=recipe.batch_size, size=recipe.patch_size, channels=recipe.channels, generator=generator
        )
        level = recipe.noise_levels(len(clean), generator)
        noisy = add_noise(clean, level, generator)
        clean, noisy, level = (t.to(fabric.device) for t in (clean, noisy, level))
        with torch.autocast(fabric.device.type, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            restored = network(noisy, level)
        return recipe.loss(restored.float(), clean, level)

    levels = (5 / 255, 15 / 255, 25 / 255, 50 / 255) if recipe.noise_level is None else (recipe.noise_level,)

    def validate(average: nn.Module) -> dict[str, float]:
        fuse(average, False)
        return {f"psnr_{round(255 * k)}": v for k, v in evaluate(average, validation, levels).items()}

    runs = fit(
        fabric,
        model,
        loss,
        recipe.schedule,
        seed=recipe.seed,
        validation=validate,
        checkpoint=folder / "checkpoint.safetensors",
        recipe=recipe.to_json(),
    )
    yield from logged(runs, folder, write=fabric.is_global_zero)


def _can_compile() -> bool:
    """Whether torch.compile works on this machine (it needs a C++ compiler on CPU)."""
    from stablenet.splines import compiled, odd_spline

    try:
        compiled(odd_spline)(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 1, 1), torch.ones(1, 1))
    except Exception as error:  # noqa: BLE001 - any failure of the compiler means: run unfused
        warnings.warn(f"splines run unfused, slower: torch.compile failed with {type(error).__name__}", stacklevel=2)
        return False
    return True
