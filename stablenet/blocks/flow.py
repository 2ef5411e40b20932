"""n steps of an explicit Runge-Kutta method for x' = -A^T sigma(A x + b), and the certificate of what they make of x.

Source: [Sherry2024] for the block, [DahlquistJeltsch1979] for z <= 2 r, docs/theorems.md T1 to T5.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from stablenet import spectral
from stablenet.activations import perspective, smoothness
from stablenet.butcher import ButcherTableau
from stablenet.certificate import Certificate, CertificateTree, NotCertified, compose, rule
from stablenet.enforcement import Schedule
from stablenet.linear import MAPS, PolyphaseConv2d, in_strips, is_plain, padding_of
from stablenet.rounding import square_up
from stablenet.rules import require_unaltered


class Flow(nn.Module):
    """x -> `schedule.steps` steps of length `schedule.step_size` of `tableau` for the field f(x) = -A^T sigma(A x + b).

    Nothing here follows the weights: this is what a trained block applies (`stablenet.export.plain`), and what
    `GradientFlow` keeps within its constraint while the weights move. Its certificate is computed from the weights.

    Parameters
    ----------
    linear : A, a map of `stablenet.linear`; activation : sigma, nondecreasing.
    tableau, schedule : the method, and how many steps of which length.
    bias : whether there is a b, (outputs,), at first 0.

    Shapes: (batch, inputs, ...) to the same. forward(x, scale) replaces sigma(u) by scale sigma(u / scale); scale > 0
    broadcasts against A x.
    """

    def __init__(
        self, linear: nn.Module, activation: nn.Module, tableau: ButcherTableau, schedule: Schedule, *, bias: bool
    ) -> None:
        super().__init__()
        if type(linear) not in MAPS:
            raise NotCertified(f"{type(linear).__name__} is not a map of stablenet.linear: a block needs an exact adjoint")
        smoothness(activation)
        self.linear, self.activation, self.tableau, self.schedule = linear, activation, tableau, schedule
        self.bias = nn.Parameter(torch.zeros(linear.weight.shape[0])) if bias else None

    @property
    def z(self) -> float:
        """h L |A|^2 with the certified norm of the present weights and the present step size."""
        return self.schedule.step_size * smoothness(self.activation) * square_up(self.spectral_norm_bound()) * (1 + 1e-15)

    def spectral_norm_bound(self) -> float:
        """The certified upper bound of |A|, computed from the present weights."""
        return spectral.upper_bound(self.linear)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        field = self._field(x, scale)
        for _ in range(self.schedule.steps):
            x = self._step(x, field)
        return x

    def _kernel(self) -> Tensor:
        """The weight that forward applies."""
        return self.linear.weight

    def _on_input(self, weight: Tensor) -> Tensor:
        """A weight as the map applies it to its input (polyphase maps hold one for the image)."""
        return self.linear.polyphase_weight(weight) if type(self.linear) is PolyphaseConv2d else weight

    def _field(self, x: Tensor, scale: Tensor | None) -> Callable[[Tensor], Tensor]:
        """x -> A^T sigma(A x + b), the negative of the field."""
        size, bias, weight = list(x.shape[2:]), self.bias, self._on_input(self._kernel())
        if bias is not None and type(self.linear) is PolyphaseConv2d:
            bias = bias.repeat_interleave(4)

        def response(u: Tensor) -> Tensor:
            return perspective(self.activation, u, scale)

        rowwise = scale is None or scale.ndim < 2 or scale.shape[-2] == 1
        traced = torch.compiler.is_compiling()  # an exported graph holds for any batch, strips depend on its size
        if x.device.type == "cpu" and rowwise and is_plain(self.linear) and not (torch.is_grad_enabled() or traced):
            return lambda x: in_strips(x, weight, bias, response, padding=padding_of(self.linear))
        return lambda x: self.linear.adjoint(response(self.linear(x, weight, bias)), size, weight)

    def _step(self, x: Tensor, field: Callable[[Tensor], Tensor]) -> Tensor:
        """k_i = field(x - h sum_j a_ij k_j), x - h sum_i b_i k_i."""
        h, stages = self.schedule.step_size, []
        for row in self.tableau.a:
            point = x
            for a, k in zip(row, stages, strict=False):
                point = point if a == 0 else torch.add(point, k.to(x.dtype), alpha=-h * float(a))
            stages.append(field(point))
        for b, k in zip(self.tableau.b, stages, strict=True):
            x = x if b == 0 else torch.add(x, k.to(x.dtype), alpha=-h * float(b))
        return x

    def extra_repr(self) -> str:
        return f"tableau={self.tableau.name}, schedule={self.schedule}"


@rule(Flow)
def certify_flow(block: Flow) -> CertificateTree:
    """The rule of a `Flow` and of what derives from it."""
    if type(block.linear) not in MAPS:
        raise NotCertified(f"a block over {type(block.linear).__name__} has no proof")
    if type(block.tableau) is not ButcherTableau or type(block.schedule) is not Schedule:
        raise NotCertified(f"a block with tableau {block.tableau!r} and schedule {block.schedule!r} has no proof")
    require_unaltered(block.tableau, NotCertified)
    require_unaltered(block.schedule, NotCertified)
    if block.bias is not None and tuple(block.bias.shape) != (block.linear.weight.shape[0],):
        raise NotCertified(f"a block with a bias of shape {tuple(block.bias.shape)} for {block.linear} has no proof")
    # from the table alone: what a tableau remembers of itself may be older than its entries
    tableau = ButcherTableau(block.tableau.a, block.tableau.b, block.tableau.name)
    z, steps = block.z, block.schedule.steps
    nonexpansive = tableau.is_nonexpansive(z)
    one = Certificate(1.0, tableau.averagedness(z)) if nonexpansive else Certificate(tableau.lipschitz(z))
    relation = "<=" if nonexpansive else "exceeds"
    norm = math.sqrt(z / (block.schedule.step_size * smoothness(block.activation))) if z else 0.0
    reason = (
        f"{steps} x {tableau.name}, h={block.schedule.step_size:.5g}, |A| <= {norm:.5g}, "
        f"z={z:.5g} {relation} 2r={2 * tableau.circle_contractivity_radius:.5g}"
    )
    return CertificateTree(type(block).__name__, compose([one] * steps), reason)
