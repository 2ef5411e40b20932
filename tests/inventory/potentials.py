"""Explicit potentials: ridges of every shape with weights at random, convex and weakly convex, gray and color."""

from __future__ import annotations

from collections.abc import Callable

import torch

from stablenet.networks import Ridge, RidgeArchitecture

SHAPES = {
    "convex": RidgeArchitecture(filters=3, kernel_size=5, weak_convexity=0.0),
    "weakly-convex": RidgeArchitecture(filters=4, kernel_size=7, weak_convexity=0.9),
    "color": RidgeArchitecture(channels=3, filters=5, kernel_size=3, weak_convexity=0.6),
    "one-segment": RidgeArchitecture(filters=2, kernel_size=9, segments=1, weak_convexity=0.3),
}


def wild_ridge(architecture: RidgeArchitecture, *, seed: int = 0, curvature: float = 1.5) -> Ridge:
    """Weights far from the start, so that every clamp of the profile is met."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ridge = Ridge(architecture)
        with torch.no_grad():
            ridge.kernels.add_(0.2 * torch.randn_like(ridge.kernels))
            ridge.slopes.add_(torch.randn_like(ridge.slopes))
            ridge.log_scales.add_(torch.randn_like(ridge.log_scales))
            ridge.log_curvature.fill_(curvature)
    return ridge.requires_grad_(False).eval()


POTENTIALS: dict[str, Callable[[], Ridge]] = {name: lambda a=shape: wild_ridge(a) for name, shape in SHAPES.items()}
