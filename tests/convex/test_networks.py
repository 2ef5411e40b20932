"""Exported networks: their weights, their certificates against measured slopes, what is refused (docs/theorems.md, X3, X4)."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

import stablenet
from stablenet.certificate import NotCertified
from stablenet.convex import Columns, GroupNorm, Newton, Program, Squared, gates, networks, run
from tests.convex.instances import data


def largest_slope(network: nn.Module, d: int, seed: int = 0) -> float:
    """The largest spectral norm of the Jacobian found: many points, then ascent by the sign pattern's own pieces."""
    x = 3 * torch.randn(4000, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda p: network(p[None])[0]))(x)
    return float(torch.linalg.matrix_norm(jacobian, 2).max())


@cache
def optimum(most: float | None, outputs: int = 1) -> tuple[Program, Tensor]:
    X, y = data(1, 6, 3, outputs)
    program = Program(X, y, gates.enumerate(X), Squared(), GroupNorm(0.05, most), cones=True)
    return program, run(program, Columns(1e-9)).variables


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("most", [None, 1.0])
def test_the_certificate_holds_and_is_not_far(most: float | None, outputs: int) -> None:
    program, V = optimum(most, outputs)
    network = networks.export(program, V)
    lipschitz = stablenet.certify(network).lipschitz
    total = float(program.lengths(V).sum())
    assert largest_slope(network, 3) <= lipschitz <= total * (1 + 1e-9)
    if outputs > 1:
        assert lipschitz < 0.95 * total
    if most is not None:
        assert lipschitz <= 1.0 and total <= 1 + 1e-8
        assert float(network(program.X).sub(program.predict(V)).abs().max()) < 1e-8


def test_one_neuron_has_its_own_constant() -> None:
    network = networks.ConvexNetwork(torch.tensor([[[3.0, 4.0]]]), None, torch.tensor([[-2.0]]))
    lipschitz = stablenet.certify(network).lipschitz
    assert 10.0 <= lipschitz <= 10.0 * (1 + 1e-13)
    assert stablenet.certify(networks.ConvexNetwork(torch.zeros(0, 1, 2), None, torch.zeros(1, 0))).lipschitz == 0.0


def test_a_constant_column_becomes_the_bias() -> None:
    X, y = data(2, 7, 2)
    X = torch.cat([X, torch.ones(7, 1, dtype=X.dtype)], 1)
    program = Program(X, y, gates.enumerate(X), Squared(), GroupNorm(0.05), cones=True)
    V = run(program, Columns()).variables
    network = networks.export(program, V, intercept=1.0)
    torch.testing.assert_close(network(X[:, :2]), program.predict(V), atol=1e-12, rtol=0)
    slope = largest_slope(network, 2)
    assert slope <= stablenet.certify(network).lipschitz < stablenet.certify(networks.export(program, V)).lipschitz


def test_three_layers_are_certified_by_the_products_of_lengths() -> None:
    g = torch.Generator().manual_seed(0)
    hidden, inner = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((4, 3, 2), (4, 3)))
    network = networks.ConvexNetwork(hidden, inner, torch.randn(2, 4, generator=g, dtype=torch.float64))
    assert network.depth == 3 and network(torch.zeros(5, 2, dtype=torch.float64)).shape == (5, 2)
    assert largest_slope(network, 2) <= stablenet.certify(network).lipschitz <= networks.weight_decay(network) * (1 + 1e-12)


def test_gated_networks_predict_and_are_refused() -> None:
    X, y = data(3, 20, 3, 2)
    drawn = gates.sample(X, 12, generator=torch.Generator().manual_seed(0))
    program = Program(X, y, drawn, Squared(), GroupNorm(0.3))
    V = run(program, Newton()).variables
    network = networks.export(program, V)
    torch.testing.assert_close(network(X), program.predict(V))
    with pytest.raises(NotCertified, match="discontinuous.*decomposed"):
        stablenet.certify(network)
    relu, parts = networks.decomposed(program, V)
    torch.testing.assert_close(relu.predict(parts), program.predict(V), atol=1e-12, rtol=0)
    made = networks.export(relu, parts)
    torch.testing.assert_close(made(X), program.predict(V), atol=1e-9, rtol=0)
    assert largest_slope(made, 3) <= stablenet.certify(made).lipschitz
    for s, i, c in torch.nonzero(relu.lengths(parts)).tolist():
        normals = torch.where(drawn.patterns[i][:, None], X, -X)
        assert float((normals @ parts[s, i, c]).min()) > -1e-10


def test_refusals() -> None:
    program, V = optimum(1.0)
    with pytest.raises(ValueError, match="beyond the bound"):
        networks.export(program, 1.1 * V)
    with pytest.raises(ValueError, match="the program's have"):
        networks.export(program, V[:1])
    with pytest.raises(ValueError, match="has cones already"):
        networks.decomposed(program, V)
    with pytest.raises(ValueError, match="units, inner, d"):
        networks.ConvexNetwork(torch.ones(2, 3), None, torch.ones(1, 2))
    with pytest.raises(ValueError, match="one inner neuron"):
        networks.ConvexNetwork(torch.ones(2, 3, 4), None, torch.ones(1, 2))
