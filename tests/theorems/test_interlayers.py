"""MaxMin and norm-1 pooling are nonexpansive, and attain it: nothing is wasted between blocks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stablenet import certify
from stablenet.interlayers import MaxMin, NormPool2d
from tests.attack import attack


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pooling_has_orthonormal_rows(size):
    pool = NormPool2d(size)
    columns = torch.stack([pool(e).flatten() for e in torch.eye(144, dtype=torch.float64).reshape(144, 1, 1, 12, 12)], 1)
    torch.testing.assert_close(columns @ columns.T, torch.eye(len(columns), dtype=torch.float64), rtol=0, atol=1e-12)
    assert certify(pool).lipschitz == 1.0


def test_the_ordinary_mean_would_waste_a_factor():
    x = torch.ones(1, 1, 4, 4)
    assert float(NormPool2d(2)(x).norm()) == pytest.approx(float(x.norm()))
    assert float(nn.AvgPool2d(2)(x).norm()) == pytest.approx(float(x.norm()) / 2)


def test_maxmin_sorts_pairs_and_keeps_the_norm():
    x = torch.randn(3, 6, 5, dtype=torch.float64)
    y = MaxMin()(x)
    pairs = torch.stack(x.chunk(2, 1)).sort(0, descending=True).values
    torch.testing.assert_close(y, torch.cat([*pairs], 1), rtol=0, atol=0)
    torch.testing.assert_close(y.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))
    found = attack(MaxMin(), (6, 4))
    assert 0.999 < found.lipschitz <= 1 + 1e-12
    assert certify(MaxMin()).lipschitz == 1.0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: MaxMin()(torch.zeros(1, 3, 2)), "even"),
        (lambda: NormPool2d(2)(torch.zeros(1, 1, 4, 5)), "4 x 5"),
        (lambda: NormPool2d(0), "size"),
        (lambda: NormPool2d(1.5), "size"),
    ],
)
def test_what_does_not_fit_is_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()
