"""The networks that convex programs train, with their weights back, and what is certified of them.

Source: [PilanciErgen2020], theorem 1, and [ErgenPilanci2021], section 3, for the weights; the bounds are docs/theorems.md, X3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stablenet.certificate import Certificate, CertificateTree, NotCertified, certify, rule
from stablenet.convex import cones
from stablenet.convex.program import Program
from stablenet.rounding import UNIT_ROUNDOFF, dot_product_margin

UNDERFLOW = 1e-150
"""What squares below the smallest float can take from the length of a vector, a coordinate."""


class ConvexNetwork(nn.Module):
    """f(x) = C (A relu(W x + b))_+ or C relu(W x + b): two or three layers in parallel; (batch, d) to (batch, outputs).

    Parameters
    ----------
    hidden : W (units, inner, d); inner is 1 for two layers.
    inner : A (units, inner): unit k is relu(sum_j A_kj relu(W_kj x + b_kj)); None for two layers, relu(W_k x + b_k).
    output : C (outputs, units).
    bias : b (units, inner), None for none.

    Raises
    ------
    ValueError : shapes that do not match.
    """

    def __init__(self, hidden: Tensor, inner: Tensor | None, output: Tensor, *, bias: Tensor | None = None) -> None:
        super().__init__()
        shapes = [tuple(t.shape) for t in (hidden, inner, output, bias) if t is not None]
        units = tuple(hidden.shape[:2])
        if hidden.ndim != 3 or output.ndim != 2 or output.shape[1] != len(hidden):
            raise ValueError(f"hidden must be (units, inner, d) and output (outputs, units), got {shapes}")
        if (inner is None and hidden.shape[1] != 1) or any(t is not None and tuple(t.shape) != units for t in (inner, bias)):
            raise ValueError(f"inner and bias must be {units}, and two layers have one inner neuron a unit, got {shapes}")
        self.hidden, self.output = nn.Parameter(hidden.clone()), nn.Parameter(output.clone())
        self.inner = None if inner is None else nn.Parameter(inner.clone())
        self.bias = None if bias is None else nn.Parameter(bias.clone())

    @property
    def depth(self) -> int:
        """2 or 3."""
        return 2 if self.inner is None else 3

    def forward(self, x: Tensor) -> Tensor:
        z = torch.einsum("nd,kjd->nkj", x, self.hidden)
        a = torch.relu(z if self.bias is None else z + self.bias)
        units = a[..., 0] if self.inner is None else torch.relu((a * self.inner).sum(2))
        return units @ self.output.T


@rule(ConvexNetwork)
def _certify(module: ConvexNetwork) -> CertificateTree:
    hidden, output = module.hidden.detach().double(), module.output.detach().double()
    units = _lengths_up(hidden)
    if module.inner is not None:
        if module.inner.shape != module.hidden.shape[:2]:
            raise NotCertified(f"inner weights of shape {tuple(module.inner.shape)} do not fit {tuple(module.hidden.shape)}")
        units = units * module.inner.detach().double().abs()
    unit = _sum_up(units)
    if output.shape[1] != len(unit):
        raise NotCertified(f"output weights of shape {tuple(output.shape)} do not fit {len(unit)} units")
    together = float(_sum_up(_lengths_up(output.T) * unit))
    each = float(_lengths_up(_sum_up(output.abs() * unit)))
    reason = "sum over neurons of the products of their weights' lengths"
    return CertificateTree("ConvexNetwork", Certificate(min(together, each)), reason)


def _lengths_up(vectors: Tensor) -> Tensor:
    """Lengths along the last axis, rounded up."""
    size = vectors.shape[-1]
    lengths = torch.linalg.vector_norm(vectors, dim=-1)
    up = lengths * (1 + 2 * dot_product_margin(size + 8, UNIT_ROUNDOFF))
    return torch.where(vectors.abs().amax(-1) > 0, up + UNDERFLOW * size, 0.0) if size else lengths


def _sum_up(terms: Tensor) -> Tensor:
    """Sums of products >= 0 along the last axis, rounded up."""
    return terms.sum(-1) * (1 + 2 * dot_product_margin(terms.shape[-1] + 8, UNIT_ROUNDOFF))


class GatedNetwork(nn.Module):
    """f(x) = sum_i 1[g_i . x >= 0] V_i x: gates that stay fixed; (batch, d) to (batch, outputs). It jumps, nothing is certified

    Parameters
    ----------
    gates : (units, d).
    weights : V (units, outputs, d).
    """

    def __init__(self, gates: Tensor, weights: Tensor) -> None:
        super().__init__()
        if gates.ndim != 2 or weights.ndim != 3 or gates.shape != (weights.shape[0], weights.shape[2]):
            raise ValueError(f"gates must be (units, d), weights (units, outputs, d), got {gates.shape} and {weights.shape}")
        self.register_buffer("gates", gates.clone())
        self.weights = nn.Parameter(weights.clone())

    def forward(self, x: Tensor) -> Tensor:
        open_ = (x @ self.get_buffer("gates").T >= 0).to(x.dtype)
        return torch.einsum("nk,kod,nd->no", open_, self.weights, x)


@rule(GatedNetwork)
def _refuse(module: GatedNetwork) -> CertificateTree:
    raise NotCertified(
        "GatedNetwork is discontinuous where a gate opens, so it has no Lipschitz constant: make it a ReLU network first, "
        "with stablenet.convex.networks.decomposed"
    )


def export(program: Program, V: Tensor, *, intercept: float | None = None) -> ConvexNetwork | GatedNetwork:
    """The network of variables V of a program: a group u becomes a neuron with weights u/sqrt|u| and sqrt|u|, with its sign.

    Parameters
    ----------
    V : of the program's shape, in its cones if it has them.
    intercept : the value of X's last column, if that is constant: it becomes the bias, and the network takes x without it.

    Returns
    -------
    ConvexNetwork : for programs with cones. Under a bound `most` of the sum its certificate is at most that; where rounding
        asks for it, the output is less than V's by a share of at most 1e-8.
    GatedNetwork : for gated ones.

    Raises
    ------
    ValueError : V has another shape, gates without vectors, an intercept for a gated network, or V beyond the bound.
    """
    if tuple(V.shape) != program.shape:
        raise ValueError(f"the variables have shape {tuple(V.shape)}, the program's have {program.shape}")
    if not program.cones:
        return _gated(program, V, intercept)
    s, i, c = torch.nonzero(program.lengths(V)).T
    u = V[s, i, c]
    root = torch.linalg.vector_norm(u, dim=1).sqrt()
    hidden, bias = (u / root[:, None])[:, None], None
    if intercept is not None:
        hidden, bias = hidden[..., :-1], intercept * hidden[..., -1]
    output = V.new_zeros(program.shape[2], len(u))
    output[c, torch.arange(len(u), device=V.device)] = (1 - 2 * s) * root
    network = ConvexNetwork(hidden, None, output, bias=bias)
    return within(network, program.penalty.most)


def within(network: ConvexNetwork, most: float | None) -> ConvexNetwork:
    """The same with its output scaled down until the certificate is at most `most`, by a share of at most 1e-8.

    Raises
    ------
    ValueError : more would be needed.
    """
    lipschitz = certify(network).lipschitz
    if most is None or lipschitz <= most:
        return network
    if lipschitz > most * (1 + 1e-8):
        raise ValueError(f"the network's Lipschitz constant is up to {lipschitz}, beyond the bound {most}: solve once more")
    with torch.no_grad():
        network.output.mul_(most / lipschitz * (1 - 64 * torch.finfo(network.output.dtype).eps))
    return network


def _gated(program: Program, V: Tensor, intercept: float | None) -> GatedNetwork:
    if program.gates.vectors is None:
        raise ValueError("these gates have no vectors, so new data cannot be gated: take gates.sample(X, number)")
    if intercept is not None:
        raise ValueError("a gated network takes the constant column as it is: leave intercept out and append it to x")
    used = program.lengths(V)[0, :, 0] > 0
    return GatedNetwork(program.gates.vectors[used], V[0, used])


def decomposed(program: Program, V: Tensor) -> tuple[Program, Tensor]:
    """A ReLU program and variables with the predictions of a gated one's: v = a - b with a and b in the gate's cone.

    Raises
    ------
    ValueError : the program has cones already, or a pattern is not that of a cell.
    """
    if program.cones:
        raise ValueError("this program has cones already: its variables are those of a ReLU network")
    relu = Program(program.X, program.y, program.gates, program.datafit, program.penalty, cones=True)
    parts = relu.zeros()
    for i in torch.nonzero(program.lengths(V)[0, :, 0])[:, 0].tolist():
        for c in range(program.shape[2]):
            parts[0, i, c], parts[1, i, c] = cones.decompose(program.X, program.gates.patterns[i], V[0, i, c])
    return relu, parts


def weight_decay(network: ConvexNetwork) -> float:
    """What a convex program penalizes, of its network: sum |w_k||c_k| for two layers, sum_j |a_kj||w_kj||c_k| for three.

    By the inequality of the means it is at most half the sum of squares of all weights for two layers, with equality for
    exported ones.
    """
    weights = network.hidden if network.bias is None else torch.cat([network.hidden, network.bias[..., None]], 2)
    units = torch.linalg.vector_norm(weights.detach(), dim=2)
    if network.inner is not None:
        units = units * network.inner.detach().abs()
    total = float((units.sum(1) * torch.linalg.vector_norm(network.output.detach(), dim=0)).sum())
    assert math.isfinite(total)
    return total
