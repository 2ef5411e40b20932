"""How denoisers, potentials and guides are trained: patches with noise, the loss of the recipe, mean PSNR as validation.

Source: the shared loop (training/loop.py); the recipe in a checkpoint's header and card is one dataclass.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from stablenet.activations import fuse
from stablenet.bundled import weights_path
from stablenet.evaluation import ImageDenoiser, evaluate
from stablenet.images.photographs import Items, add_noise, random_patches, some_flat
from stablenet.networks.denoiser import Denoiser
from stablenet.networks.guided import Guidance, Guided
from stablenet.networks.ridge import Ridge
from stablenet.training import fingerprint
from stablenet.training.devices import fabric_on
from stablenet.training.loop import Objective, StepReport, Task, fit
from stablenet.training.patches import PatchRecipe
from stablenet.training.precision import settle
from stablenet.training.recipe import DenoiserRecipe, GuidedRecipe, RidgeRecipe
from stablenet.training.records import logged
from stablenet.weights import load

if TYPE_CHECKING:
    from lightning_fabric import Fabric


Photographic = DenoiserRecipe | RidgeRecipe | GuidedRecipe


def initial(recipe: Photographic) -> Denoiser | Ridge | Guided:
    """The network that training begins with; the global generator stays as it was.

    Raises
    ------
    ValueError : the weights to start from are missing, refused, or of a shape that cannot grow to the recipe's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if isinstance(recipe, GuidedRecipe):
            return _guided(recipe)
        return _ridge(recipe) if isinstance(recipe, RidgeRecipe) else _denoiser(recipe)


def _denoiser(recipe: DenoiserRecipe) -> Denoiser:
    network = Denoiser(recipe.architecture)
    if recipe.start is not None:
        source = cast(Denoiser, load(weights_path(recipe.start), kind="denoiser"))
        source = source if recipe.anchor is None else source.condensed()
        network = source.grown(recipe.architecture).requires_grad_(True)
    return network if recipe.anchor is None else network.lowered(recipe.anchor)


def _ridge(recipe: RidgeRecipe) -> Ridge:
    if recipe.start is None:
        return Ridge(recipe.architecture)
    source = cast(Ridge, load(weights_path(recipe.start), kind="ridge"))
    return source.grown(recipe.architecture).requires_grad_(True)


def _guided(recipe: GuidedRecipe) -> Guided:
    assert recipe.start is not None
    a, ridge = recipe.architecture, cast(Ridge, load(weights_path(recipe.start), kind="ridge"))
    for name in ("channels", "max_noise_level"):
        if getattr(a, name) != getattr(ridge, name):
            raise ValueError(f"{recipe.start} has {name} {getattr(ridge, name)}, the recipe {getattr(a, name)}: give the same")
    return Guided(Guidance(ridge.requires_grad_(False), a.width, a.dilations, a.steepest))


def train(
    recipe: Photographic,
    dataset: Items,
    validation: Items,
    folder: Path,
    *,
    fabric: Fabric | None = None,
    fused: bool = True,
    model: nn.Module | None = None,
    data_name: str = "images",
) -> Iterator[tuple[StepReport, nn.Module]]:
    """Train a denoiser, yielding (report, averaged denoiser) a step; checkpoints and log.csv go to `folder`.

    `model` replaces the network of the recipe by any module with `channels` and the same call, for comparisons. `data_name`
    says in messages what `dataset` is.

    Raises
    ------
    ValueError : images smaller than the patch, a checkpoint of another recipe or of other images, a NaN loss.
    """
    fabric = fabric or fabric_on("auto")
    fabric.launch()
    model = initial(recipe) if model is None else model
    fuse(model, fused and not isinstance(model, Ridge | Guided) and _can_compile())
    levels = (5 / 255, 15 / 255, 25 / 255, 50 / 255) if recipe.noise_level is None else (recipe.noise_level,)

    def validate(average: nn.Module) -> dict[str, float]:
        fuse(average, False)
        return {f"psnr_{round(255 * k)}": v for k, v in evaluate(cast(ImageDenoiser, average), validation, levels).items()}

    task = Task(
        model,
        _objective(recipe, dataset, fabric.device),
        validate,
        recipe,
        fingerprint.take(dataset, data_name),
        folder,
    )
    yield from logged(fit(fabric, task), folder, write=fabric.is_global_zero)


def _objective(recipe: PatchRecipe, dataset: Items, device: torch.device) -> Objective:
    precision, channels = settle(recipe.precision, device), recipe.architecture.channels

    def loss(network: nn.Module, generator: torch.Generator) -> Tensor:
        clean = random_patches(dataset, count=recipe.batch_size, size=recipe.patch_size, channels=channels, generator=generator)
        clean = some_flat(clean, recipe.flat_share, generator) if recipe.flat_share else clean
        level = recipe.noise_levels(len(clean), generator)
        noisy = add_noise(clean, level, generator)
        clean, noisy, level = (t.to(device) for t in (clean, noisy, level))
        with torch.autocast(device.type, torch.bfloat16, enabled=precision.half):
            found = _refreshed(network, noisy, level, recipe) if isinstance(recipe, GuidedRecipe) else [network(noisy, level)]
        return torch.stack([recipe.loss(restored.float(), clean, level) for restored in found]).mean()

    return loss


def _refreshed(network: nn.Module, noisy: Tensor, level: Tensor, recipe: GuidedRecipe) -> list[Tensor]:
    """The estimate after each refresh of the guide, which is held fixed in the derivatives too."""
    with torch.no_grad(), torch.autocast(noisy.device.type, enabled=False):
        guide = cast(Guided, network).ridge(noisy, level)
    found = []
    for _ in range(recipe.refreshes):
        found.append(network(noisy, level, guide=guide))
        guide = found[-1].detach().float()
    return found


def _can_compile() -> bool:
    """Whether torch.compile works on this machine (it needs a C++ compiler on CPU)."""
    from stablenet.splines import compiled, odd_spline

    try:
        compiled(odd_spline)(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 1, 1), torch.ones(1, 1))
    except Exception as error:  # noqa: BLE001 - any failure of the compiler means: run unfused
        warnings.warn(f"splines run unfused, slower: torch.compile failed with {type(error).__name__}", stacklevel=2)
        return False
    return True
