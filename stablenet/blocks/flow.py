"""n steps of an explicit Runge-Kutta method for x' = -A^T sigma(A x + b), and the certificate of what they make of x.

Source: [Sherry2024] for the block, [DahlquistJeltsch1979] for z <= 2 r, docs/theorems.md T1 to T5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from stablenet import spectral
from stablenet.activations import perspective, smoothness
from stablenet.butcher import ButcherTableau
from stablenet.certificate import Certificate, CertificateTree, NotCertified, compose, rule
from stablenet.enforcement import Schedule
from stablenet.linear import WeightedMap, block_map, in_strips
from stablenet.rounding import square_up
from stablenet.rules import Rules, require_unaltered

plain_form: Rules[nn.Module] = Rules(
    "plain form", NotCertified, "known are {known}; @stablenet.blocks.flow.plain_form({name}) registers another"
)
"""A block without what trained it: the module that computes the same in evaluation mode, sharing its parameters."""


class RungeKutta(nn.Module):
    """x -> `schedule.steps` steps of length `schedule.step_size` of `tableau` for the field f(x) = -A^T sigma(A x + b).

    A class that derives from it says which schedule: `Flow` has one, `GradientFlow` computes it from the weights.

    Parameters
    ----------
    linear : A, a map of a block (`stablenet.linear.block_map`); activation : sigma, nondecreasing.
    tableau : the method.
    bias : whether there is a b, (outputs,), at first 0.

    Shapes: (batch, inputs, ...) to the same. forward(x, scale) replaces sigma(u) by scale sigma(u / scale); scale > 0
    broadcasts against A x.
    """

    linear: WeightedMap
    schedule: Schedule

    def __init__(self, linear: WeightedMap, activation: nn.Module, tableau: ButcherTableau, *, bias: bool) -> None:
        super().__init__()
        if not block_map.covers(linear):
            known = ", ".join(sorted(cls.__name__ for cls in block_map.known()))
            raise NotCertified(
                f"{type(linear).__name__} is not a map of a block, which needs an exact adjoint: known are {known}, and "
                f"@stablenet.linear.block_map({type(linear).__name__}) registers another"
            )
        smoothness(activation)
        self.linear, self.activation, self.tableau = linear, activation, tableau
        self.bias = nn.Parameter(torch.zeros(linear.outputs)) if bias else None

    def schedule_in_evaluation(self) -> Schedule:
        """What forward applies in evaluation mode, measured anew: what a certificate speaks of."""
        return self.schedule

    @property
    def z(self) -> float:
        """h L |A|^2 with the certified norm of the present weights and the present step size."""
        return self.z_of(self.schedule)

    def z_of(self, schedule: Schedule) -> float:
        """h L |A|^2 of a schedule with the certified norm of the present weights, rounded up."""
        return schedule.step_size * smoothness(self.activation) * square_up(self.spectral_norm_bound()) * (1 + 1e-15)

    def spectral_norm_bound(self) -> float:
        """The certified upper bound of |A|, computed from the present weights."""
        return spectral.upper_bound(cast(nn.Module, self.linear))

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        schedule, field = self.schedule, self._field(x, scale)
        for _ in range(schedule.steps):
            x = self._step(x, field, schedule.step_size)
        return x

    def _weight(self) -> Tensor:
        """The weight that forward applies."""
        return self.linear.weight

    def _field(self, x: Tensor, scale: Tensor | None) -> Callable[[Tensor], Tensor]:
        """x -> A^T sigma(A x + b), the negative of the field."""
        linear, size = self.linear, list(x.shape[2:])
        kernel = linear.kernel(self._weight())
        bias = None if self.bias is None else linear.expand(self.bias)

        def response(u: Tensor) -> Tensor:
            return perspective(self.activation, u, scale)

        strips = linear.strips
        rowwise = scale is None or scale.ndim < 2 or scale.shape[-2] == 1
        traced = torch.compiler.is_compiling()  # an exported graph holds for any batch, strips depend on its size
        if strips is not None and x.device.type == "cpu" and rowwise and not (torch.is_grad_enabled() or traced):
            return lambda x: in_strips(x, kernel, bias, response, padding=strips.padding)
        return lambda x: linear.adjoint(response(linear(x, kernel, bias)), size, kernel)

    def _step(self, x: Tensor, field: Callable[[Tensor], Tensor], h: float) -> Tensor:
        """k_i = field(x - h sum_j a_ij k_j), x - h sum_i b_i k_i."""
        stages: list[Tensor] = []
        for row in self.tableau.a:
            point = x
            for a, k in zip(row, stages, strict=False):
                point = point if a == 0 else torch.add(point, k.to(x.dtype), alpha=-h * float(a))
            stages.append(field(point))
        for b, k in zip(self.tableau.b, stages, strict=True):
            x = x if b == 0 else torch.add(x, k.to(x.dtype), alpha=-h * float(b))
        return x


class Flow(RungeKutta):
    """A block of which nothing follows the weights: what a trained one applies (`stablenet.export.plain`).

    schedule : how many steps of which length; the rest as in `RungeKutta`. Its certificate is computed from the weights, and
    says so where they are too large for the schedule.
    """

    def __init__(
        self, linear: WeightedMap, activation: nn.Module, tableau: ButcherTableau, schedule: Schedule, *, bias: bool
    ) -> None:
        super().__init__(linear, activation, tableau, bias=bias)
        self.schedule = schedule

    def extra_repr(self) -> str:
        return f"tableau={self.tableau.name}, schedule={self.schedule}"


@plain_form(Flow)
def _itself(block: Flow) -> Flow:
    return block


@rule(Flow)
def certify_flow(block: RungeKutta) -> CertificateTree:
    """The rule of a `Flow` and of what else derives from `RungeKutta`."""
    linear, schedule = block_map.of(block.linear), block.schedule_in_evaluation()
    if type(block.tableau) is not ButcherTableau or type(schedule) is not Schedule:
        raise NotCertified(f"a block with tableau {block.tableau!r} and schedule {schedule!r} has no proof")
    require_unaltered(block.tableau, NotCertified)
    require_unaltered(schedule, NotCertified)
    if block.bias is not None and tuple(block.bias.shape) != (linear.outputs,):
        raise NotCertified(f"a block with a bias of shape {tuple(block.bias.shape)} for {linear} has no proof")
    # from the table alone: what a tableau remembers of itself may be older than its entries
    tableau = ButcherTableau(block.tableau.a, block.tableau.b, block.tableau.name)
    z, steps = block.z_of(schedule), schedule.steps
    nonexpansive = tableau.is_nonexpansive(z)
    one = Certificate(1.0, tableau.averagedness(z)) if nonexpansive else Certificate(tableau.lipschitz(z))
    relation = "<=" if nonexpansive else "exceeds"
    norm = math.sqrt(z / (schedule.step_size * smoothness(block.activation))) if z else 0.0
    reason = (
        f"{steps} x {tableau.name}, h={schedule.step_size:.5g}, |A| <= {norm:.5g}, "
        f"z={z:.5g} {relation} 2r={2 * tableau.circle_contractivity_radius:.5g}"
    )
    return CertificateTree(type(block).__name__, compose([one] * steps), reason)
