"""A problem whose physics or measurement was changed after it was posed is noticed before a run, and not before."""

from __future__ import annotations

from collections.abc import Callable

import deepinv
import pytest
import torch
from deepinv.physics import LinearPhysics
from torch import Tensor, nn

import pnp
from tests.inventory.physics import PHYSICS, Case

KERNEL = torch.full((1, 1, 3, 3), 1 / 9)


def fourier_blur() -> LinearPhysics:
    return deepinv.physics.BlurFFT(img_size=(1, 12, 12), filter=KERNEL)


def plain_blur() -> LinearPhysics:
    return deepinv.physics.Blur(KERNEL, padding="circular")


def inpainting() -> LinearPhysics:
    return deepinv.physics.Inpainting(img_size=(1, 12, 12), mask=torch.ones(1, 12, 12))


def downsampling() -> LinearPhysics:
    return deepinv.physics.Downsampling((1, 12, 12), filter=KERNEL, factor=2)


def tomography() -> LinearPhysics:
    return deepinv.physics.Tomography(angles=4, img_width=12, normalize=False)


def change(attribute: str, value: object) -> Callable[[LinearPhysics], None]:
    return lambda physics: setattr(physics, attribute, value)


CHANGES: dict[str, tuple[Callable[[], LinearPhysics], Callable[[LinearPhysics], object]]] = {
    "update_parameters": (fourier_blur, lambda p: p.update_parameters(filter=2 * KERNEL)),
    "update": (plain_blur, lambda p: p.update(filter=2 * KERNEL)),
    "a new filter": (plain_blur, change("filter", 2 * KERNEL)),
    "a call with a filter": (plain_blur, lambda p: p.A(torch.rand(1, 1, 12, 12), filter=2 * KERNEL)),
    "in place": (inpainting, lambda p: p.mask.mul_(2)),
    "behind the counter": (inpainting, lambda p: p.mask.data.mul_(2)),
    "precision": (inpainting, lambda p: p.double()),
    "padding": (plain_blur, change("padding", "constant")),
    "conv": (plain_blur, lambda p: p.conv.update({2: lambda x, filter, padding: 3 * x})),
    "A": (plain_blur, change("A", lambda x: 3 * x)),
    "U": (inpainting, change("_U", lambda x: 3 * x)),
    "factor": (downsampling, change("factor", 3)),
    "filter of downsampling": (downsampling, lambda p: p.update_parameters(filter=2 * KERNEL)),
    "angles": (tomography, lambda p: p.radon.all_grids.mul_(0.9)),
}


def posed(make: Callable[[], LinearPhysics]) -> pnp.Problem:
    physics = make()
    return pnp.pose(physics.A(torch.rand(1, 1, 12, 12)), physics, noise_level=0.03)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_refused(name: str) -> None:
    make, spoil = CHANGES[name]
    problem = posed(make)
    problem.require_unchanged()
    spoil(problem.physics)
    with pytest.raises(pnp.Refused, match="changed after it was posed.*Pose it again"):
        problem.require_unchanged()


def test_a_measurement_that_was_written_to_is_refused() -> None:
    physics = plain_blur()
    y = physics.A(torch.rand(1, 1, 12, 12))
    problem = pnp.pose(y, physics, noise_level=0.03)
    y.clamp_(0, 0.5)
    with pytest.raises(pnp.Refused, match="the measurement was changed"):
        problem.require_unchanged()


def test_a_variable_of_a_users_function_is_seen_through_its_values() -> None:
    weight = {"w": 2.0}
    physics = LinearPhysics(A=lambda x: weight["w"] * x, A_adjoint=lambda y: weight["w"] * y)
    problem = pnp.pose(torch.rand(1, 1, 12, 12), physics, noise_level=0.03, smoothness=4.5)
    weight["w"] = 3.0
    with pytest.raises(pnp.Refused, match="A_adjoint was changed"):
        problem.require_unchanged()


@pytest.mark.parametrize("case", PHYSICS.values(), ids=PHYSICS)
def test_use_is_no_change(case: Case) -> None:
    """Gradients and proximal operators, other images, the same filter again, other settings of solvers, another batch."""
    problem = case.pose(torch.float32)
    image = case.image(seed=3, dtype=torch.float32)
    problem.gradient(image)
    problem.prox(image, 0.1)
    problem.physics.A(torch.cat([image, image])[:1].clone())
    problem.physics.set_ls_solver("CG", max_iter=30)
    problem.physics.eval()
    problem.require_unchanged()


def test_counters_and_caches_of_a_users_class_are_its_own() -> None:
    class Counting(LinearPhysics):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((1, 1, 12, 12), 0.5))
            self.calls, self.last = 0, None

        def A(self, x: Tensor, **_: object) -> Tensor:
            self.calls, self.last = self.calls + 1, x
            return self.weight * x

        def A_adjoint(self, y: Tensor, **_: object) -> Tensor:
            return self.weight * y

    physics = Counting()
    problem = pnp.pose(torch.rand(1, 1, 12, 12), physics, noise_level=0.03, smoothness=0.25)
    problem.gradient(torch.rand(1, 1, 12, 12))
    problem.require_unchanged()
    with torch.no_grad():
        physics.weight.mul_(2)
    with pytest.raises(pnp.Refused, match="weight was changed"):
        problem.require_unchanged()
