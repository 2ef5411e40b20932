"""The fused products of benchmarks/potentials are those of `Level` in bfloat16, where a processor and a compiler have them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from stablenet.linear.cells import product_matrix
from stablenet.networks import RidgeArchitecture, implicit, profiles
from stablenet.networks.level import Level
from tests.inventory.potentials import wild_ridge

SIZE = (12, 14)


@pytest.fixture(scope="module")
def fused():
    path = Path(__file__).parents[2] / "benchmarks/potentials/fused.py"
    spec = importlib.util.spec_from_file_location("fused", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        module.library()
    except RuntimeError as error:
        pytest.skip(str(error))
    return module


@pytest.mark.parametrize("channels", [1, 3])
def test_values_and_derivatives_are_those_of_the_level(fused, channels):
    ridge = wild_ridge(RidgeArchitecture(channels, filters=4, kernel_size=7, weak_convexity=0.7))
    generator = torch.Generator().manual_seed(0)
    x, v = (torch.rand(2, channels, *SIZE, generator=generator) for _ in range(2))
    bank, bends, scales = ridge.bank(), profiles.bends(ridge.profile_slopes()), ridge.scales(torch.tensor([0.05, 0.15]))
    fast, level = fused.Fused(bank, bends, scales, SIZE), Level(bank, bends, scales, SIZE, half=True)

    def near(found, expected):
        return float((found - expected).norm()) < 0.02 * float(expected.norm())

    assert near(fast.gradient(x), level.gradient(x))
    assert near(fast.hessian(x)(v), level.hessian(x)(v))
    leaves = [t.clone().requires_grad_(True) for t in (bank, bends, scales)]
    expected = torch.autograd.grad(implicit.pairing(level, x, v, *leaves), leaves)
    of_matrix, of_bends, of_scales = fast.pairing(x, v)
    leaf = bank.clone().requires_grad_(True)
    product_matrix(leaf).backward(of_matrix)
    of_bank = (g - g.mean((-1, -2), keepdim=True) for g in (leaf.grad, expected[0]))  # kernels have no mean
    assert near(*of_bank) and near(of_bends, expected[1]) and near(of_scales, expected[2])
