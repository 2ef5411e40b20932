"""A rule speaks of what the code of a class computes: an instance that computes anything else is refused."""

from __future__ import annotations

from collections.abc import Callable

import deepinv
import pytest
import torch
from deepinv.physics import LinearPhysics
from torch import Tensor, nn

import pnp
from tests.inventory.physics import NOISE_LEVEL, PHYSICS, Case, dense

SIZE = 12
MASK = (torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) > 0.5).float()
KERNEL = torch.full((1, 1, 3, 3), 1 / 9)


def triple(x: Tensor, *_: object, **__: object) -> Tensor:
    return 3 * x


MAKE: dict[str, Callable[..., LinearPhysics]] = {
    "denoising": lambda **parts: deepinv.physics.Denoising(**parts),
    "inpainting": lambda **parts: deepinv.physics.Inpainting(img_size=(1, SIZE, SIZE), mask=MASK, **parts),
    "demosaicing": lambda **parts: deepinv.physics.Demosaicing(img_size=(SIZE, SIZE), **parts),
    "mri": lambda **parts: deepinv.physics.MRI(mask=MASK[0], **parts),
}
CHANNELS = {"demosaicing": 3, "mri": 2}


def pose(name: str, physics: LinearPhysics, **settings: float) -> pnp.Problem:
    y = torch.rand(1, CHANNELS.get(name, 1), SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return pnp.pose(y, physics, noise_level=0.03, **settings)


@pytest.mark.parametrize("parts", [{"U": triple, "U_adjoint": triple}, {"V_adjoint": triple, "V": triple}, {"U": triple}])
@pytest.mark.parametrize("name", MAKE)
def test_functions_passed_by_keyword_are_refused(name: str, parts: dict[str, Callable[..., Tensor]]) -> None:
    """With U = 3 I the mask alone certified 1 where |A|^2 is 9."""
    with pytest.raises(pnp.Refused, match="passed or set from outside.*smoothness="):
        pnp.certified_smoothness(MAKE[name](**parts))
    with pytest.raises(pnp.Refused, match="passed or set from outside.*smoothness="):
        pose(name, MAKE[name](**parts))


@pytest.mark.parametrize("attribute", ["A", "A_adjoint", "A_adjoint_A", "U", "V", "V_adjoint", "prox_l2", "update_parameters"])
@pytest.mark.parametrize("name", MAKE)
def test_replaced_methods_are_refused(name: str, attribute: str) -> None:
    physics = MAKE[name]()
    setattr(physics, attribute, triple)
    with pytest.raises(pnp.Refused, match=f"replaced {attribute}\\b"):
        pose(name, physics)


@pytest.mark.parametrize("attribute", ["im_to_kspace", "kspace_to_im", "fft", "ifft", "to_torch_complex", "_U", "_V"])
def test_replaced_parts_of_mri_are_refused(attribute: str) -> None:
    physics = MAKE["mri"]()
    setattr(physics, attribute, triple)
    with pytest.raises(pnp.Refused, match=attribute.strip("_")):
        pose("mri", physics)


class Triple(nn.Module):
    """A function that torch registers as a child instead of an attribute."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x


@pytest.mark.parametrize("name", MAKE)
def test_modules_passed_or_set_as_parts_are_refused(name: str) -> None:
    physics = MAKE[name]()
    physics._U = Triple()
    for altered in (MAKE[name](V_adjoint=Triple(), V=Triple()), MAKE[name](U=Triple(), U_adjoint=Triple()), physics):
        with pytest.raises(pnp.Refused, match="passed or set from outside"):
            pnp.certified_smoothness(altered)


@pytest.mark.parametrize("part", ["conv", "conv_transpose"])
@pytest.mark.parametrize("whole", [False, True])
def test_replaced_convolutions_of_a_blur_are_refused(part: str, whole: bool) -> None:
    physics = deepinv.physics.Blur(KERNEL, padding="circular")
    if whole:
        setattr(physics, part, {2: triple, 3: triple})
    else:
        getattr(physics, part)[2] = triple
    with pytest.raises(pnp.Refused, match="conv or conv_transpose was replaced"):
        pose("blur", physics)


@pytest.mark.parametrize("spoil", ["mask", "angle", "filter", "img_size"])
def test_tensors_of_a_fourier_blur_that_belong_to_no_filter_are_refused(spoil: str) -> None:
    physics = deepinv.physics.BlurFFT(img_size=(1, SIZE, SIZE), filter=KERNEL)
    setattr(physics, spoil, (1, SIZE, SIZE + 1) if spoil == "img_size" else 3 * getattr(physics, spoil))
    with pytest.raises(pnp.Refused, match="not that of its filter"):
        pose("blur", physics)


def test_a_part_of_tomography_that_was_replaced_is_refused() -> None:
    physics = deepinv.physics.Tomography(angles=4, img_width=SIZE, normalize=False)
    pnp.certified_smoothness(physics)
    physics.radon.forward = triple
    with pytest.raises(pnp.Refused, match="Radon carries a replaced forward"):
        pnp.certified_smoothness(physics)


def test_the_adjoint_of_tomography_by_interpolation_is_refused() -> None:
    physics = deepinv.physics.Tomography(angles=4, img_width=SIZE, normalize=False, adjoint_via_backprop=False)
    y = physics.A(torch.rand(1, 1, SIZE, SIZE))
    with pytest.raises(pnp.Refused, match="adjoint_via_backprop=False"):
        pnp.pose(y, physics, noise_level=0.03)
    with pytest.raises(pnp.Refused, match="A_adjoint is not the adjoint"):
        pnp.pose(y, physics, noise_level=0.03, smoothness=1e4)


def test_a_tensor_of_another_class_is_refused() -> None:
    class Quantized(Tensor):
        pass

    physics = MAKE["inpainting"]()
    physics.mask = MASK[None].as_subclass(Quantized)
    with pytest.raises(pnp.Refused, match="Quantized"):
        pose("inpainting", physics)


class Halves(LinearPhysics):
    """A physics whose shortcuts need not agree with A and A_adjoint."""

    def __init__(self, normal: float = 0.25, prox: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.normal = normal
        self.formula = prox

    def A(self, x: Tensor, **_: object) -> Tensor:
        return x / 2

    def A_adjoint(self, y: Tensor, **_: object) -> Tensor:
        return y / 2

    def A_adjoint_A(self, x: Tensor, **_: object) -> Tensor:
        return self.normal * x

    def prox_l2(self, z: Tensor, y: Tensor, gamma: float, **_: object) -> Tensor:
        right = (z + gamma * y / 2) / (1 + gamma / 4)
        return right if self.formula is None else self.formula(right)


@pnp.physics.rule(Halves)
def _halves(_: Halves) -> pnp.Smoothness:
    return pnp.Smoothness(0.25, "half", exact_prox=True, strong_convexity=0.25, convexity_reason="half")


def test_a_normal_map_that_is_not_the_product_is_refused_with_both_numbers() -> None:
    assert pose("own", Halves()).smoothness.value == 0.25
    for settings in ({}, {"smoothness": 1.0}):
        with pytest.raises(
            pnp.Refused, match=r"A_adjoint_A is not A_adjoint\(A\(...\)\).*differ by [\d.]+ .*where the norm is [\d.]+"
        ):
            pose("own", Halves(normal=0.26), **settings)


def test_a_proximal_formula_that_is_wrong_is_not_used() -> None:
    v = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    right, wrong = pose("own", Halves()), pose("own", Halves(prox=lambda p: 1.01 * p))
    assert right.exact_prox and not wrong.exact_prox
    assert any("proximal operator" in told for told in right.tested)
    torch.testing.assert_close(wrong.prox(v, 3.0)[0], right.prox(v, 3.0)[0], atol=1e-5, rtol=0)


def test_a_physics_that_mixes_the_images_of_a_batch_is_refused() -> None:
    """The laws of a run are told image by image."""
    y = torch.rand(2, 1, SIZE, SIZE)
    mixing = LinearPhysics(A=lambda x: x.roll(1, 0), A_adjoint=lambda y: y.roll(-1, 0))
    assert pnp.pose(y[:1], mixing, noise_level=0.03, smoothness=1.0).smoothness.value == 1
    with pytest.raises(pnp.Refused, match="mixes the images of a batch"):
        pnp.pose(y, mixing, noise_level=0.03, smoothness=1.0)


@pytest.mark.parametrize("case", PHYSICS.values(), ids=PHYSICS)
def test_a_smoothness_that_is_too_small_is_caught(case: Case) -> None:
    """By 5 percent: a lower bound above the upper bound."""
    problem = case.pose()
    exact = float(torch.linalg.matrix_norm(dense(problem.physics.A, case.shape), 2)) ** 2
    for told in (0.95 * exact, 0.5 * exact):
        with pytest.raises(pnp.Refused, match=r"not an upper bound of \|A\|\^2.*pass at least [\d.]+, with a margin"):
            pnp.pose(problem.measurement, problem.physics, noise_level=NOISE_LEVEL, smoothness=told)


@pytest.mark.parametrize(("operator", "message"), [(lambda x: x + 0.5, "not linear"), (torch.relu, "not linear")])
def test_an_operator_that_is_not_linear_is_refused(operator: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(pnp.Refused, match=message):
        pose("own", LinearPhysics(A=operator, A_adjoint=lambda y: y), smoothness=2.0)
