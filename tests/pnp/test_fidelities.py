"""The maps of a data fidelity satisfy their definitions: gradient, proximal operator, Moreau's identity."""

from __future__ import annotations

import pytest
import torch

from pnp import Bound
from pnp.fidelities import L2

Z, Y = (torch.rand(3, 1, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (0, 1))


def test_the_gradient_is_that_of_the_value_image_by_image() -> None:
    z = Z.clone().requires_grad_(True)
    value = L2().value(z, Y)
    assert value.shape == (3,)
    (slope,) = torch.autograd.grad(value.sum(), z)
    torch.testing.assert_close(L2().gradient(Z, Y), slope)


@pytest.mark.parametrize("step_size", [0.1, 1.0, 7.0])
def test_prox_is_where_its_gradient_vanishes(step_size: float) -> None:
    p = L2().prox(Z, Y, step_size)
    torch.testing.assert_close(p + step_size * L2().gradient(p, Y), Z)


@pytest.mark.parametrize("step_size", [0.1, 1.0, 7.0])
def test_the_conjugate_has_the_prox_of_moreau(step_size: float) -> None:
    """prox of s g* at u = u - s prox of g/s at u/s."""
    moreau = Z - step_size * L2().prox(Z / step_size, Y, 1 / step_size)
    torch.testing.assert_close(L2().conjugate_prox(Z, Y, step_size), moreau)


def test_a_bound_is_finite_and_says_where_it_comes_from() -> None:
    assert str(Bound(2.5, "as told", "supplied")) == "2.5 (as told; supplied)"
    for value in (float("inf"), float("nan"), -1.0):
        with pytest.raises(ValueError, match="finite and >= 0"):
            Bound(value, "nothing")
