"""Gradient-flow blocks: n steps of an explicit Runge-Kutta method for x' = -A^T sigma(A x + b).

Source: [Sherry2024] for the block, [DahlquistJeltsch1979] for z <= 2 r, docs/theorems.md T1 to T5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stablenet import spectral, symbols
from stablenet.activations import perspective, slope_interval, smoothness
from stablenet.certificate import Certificate, CertificateTree, NotCertified, compose, require_unaltered, rule
from stablenet.enforcement import Policy, Rescale, Schedule, Step, Substeps
from stablenet.linear import MAPS, PolyphaseConv2d, in_strips, is_plain
from stablenet.tableaus import EULER, ButcherTableau

COLD_ITERATIONS = 50
SYMBOL_INPUTS = 4
POLICIES = (Substeps, Step, Rescale)


class GradientFlow(nn.Module):
    """x -> n steps of length h of `tableau` for the field f(x) = -A^T sigma(A x + b); nonexpansive if h L |A|^2 <= 2 r.

    Parameters
    ----------
    linear : A, a map of `stablenet.linear` (it has an exact adjoint).
    activation : sigma, nondecreasing: torch's ReLU, LeakyReLU (slope in [0, 1]), ELU, Softplus, Tanh, Sigmoid, Hardtanh
        or `stablenet.activations` Clamp and LinearSpline.
    tableau : a method with positive circle-contractivity radius r.
    time : T = n h, the time to integrate over (the most, under the policy Step).
    policy : Substeps(), Step() or Rescale(): what yields when the norm grows.
    fraction : theta in (0, 1], the share of the admissible z = 2 r that is used.
    bias : whether b is learned (one a channel of A's output) or absent.
    tolerance, max_iterations : of the warm power iteration that tracks |A| while training.

    Shapes: (batch, inputs, ...) to the same. forward(x, scale) replaces sigma(u) by scale sigma(u / scale); scale > 0
    broadcasts against A x.

    Raises
    ------
    ValueError : radius 0 (explicit midpoint, Heun3, Dormand-Prince), or a parameter out of range.
    NotCertified : the map or the activation is not one for which a proof exists.
    """

    def __init__(
        self,
        linear: nn.Module,
        activation: nn.Module,
        *,
        tableau: ButcherTableau = EULER,
        time: float = 1.0,
        policy: Policy = Step(),  # noqa: B008 - frozen
        fraction: float = 0.99,
        bias: bool = True,
        tolerance: float = 1e-3,
        max_iterations: int = 3,
    ) -> None:
        super().__init__()
        if type(linear) not in MAPS:
            raise NotCertified(f"{type(linear).__name__} is not a map of stablenet.linear: a block needs an exact adjoint")
        if type(policy) not in POLICIES:
            raise NotCertified(f"policy must be Substeps(), Step() or Rescale(), got {policy!r}")
        if tableau.circle_contractivity_radius <= 0:
            raise ValueError(
                f"{tableau.name} has circle-contractivity radius 0: no step of it is nonexpansive for every gradient flow; "
                "use Euler, Heun, Ralston2, SSPRK3, Kutta3, Ralston3, RK4 or RK38"
            )
        if not (time > 0 and math.isfinite(time)) or not 0 < fraction <= 1:
            raise ValueError(f"time must be positive and fraction in (0, 1], got time={time}, fraction={fraction}")
        smoothness(activation)
        self.linear, self.activation, self.tableau, self.policy = linear, activation, tableau, policy
        self.time, self.fraction = time, fraction
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.bias = nn.Parameter(torch.zeros(linear.weight.shape[0])) if bias else None
        shape = (2, *linear.weight.shape[1:]) if self._has_symbol else (1, *linear.example_shape)
        start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.register_buffer("power_vector", start / start.norm())
        self.register_buffer("tracked_norm", torch.zeros((), dtype=torch.float64))
        self.schedule = Schedule(1, 0.0)
        self._track(COLD_ITERATIONS)
        self.register_load_state_dict_post_hook(_refresh)

    @property
    def z_max(self) -> float:
        """theta 2 r: the largest h L |A|^2 that the policy lets through (a hair below, for rounding)."""
        return self.fraction * 2 * min(self.tableau.circle_contractivity_radius, 1e6) * (1 - 1e-9)

    @property
    def z(self) -> float:
        """h L |A|^2 with the certified norm of the present weights and the present step size."""
        return self.schedule.step_size * smoothness(self.activation) * self.spectral_norm_bound() ** 2 * (1 + 1e-15)

    def spectral_norm_bound(self) -> float:
        """The certified upper bound of |A|, computed from the present weights."""
        return spectral.upper_bound(self.linear)

    def enforce(self) -> None:
        """Let the policy follow the norm: tracked in training mode, certified in evaluation mode."""
        if self.training:
            self._track(self.max_iterations)
        else:
            self._follow(self.spectral_norm_bound())

    def train(self, mode: bool = True) -> GradientFlow:
        super().train(mode)
        if mode:
            self._track(COLD_ITERATIONS)
        else:
            self._follow(self.spectral_norm_bound())
        return self

    @torch.no_grad()
    def _track(self, iterations: int) -> None:
        if self._has_symbol:
            vector = symbols.peak(self.linear.weight)
            norm = float(symbols.gain(self.linear.weight, vector))
        else:
            linear, adjoint = self._maps(self.power_vector.shape[2:])
            norm, vector, _ = spectral.power_iteration(
                linear,
                self.power_vector,
                adjoint=adjoint,
                tolerance=self.tolerance,
                max_iterations=iterations,
                previous=float(self.tracked_norm),
            )
        if not math.isfinite(norm):
            raise ValueError("the weights of a gradient-flow block hold NaN or infinity: restore a checkpoint")
        self.power_vector.copy_(vector)
        self.tracked_norm.fill_(norm)
        self._follow(norm)

    @property
    def _has_symbol(self) -> bool:
        """Whether the norm is followed on the symbol: cheap and without lag for convolutions of few inputs."""
        return is_plain(self.linear) and self.linear.inputs <= SYMBOL_INPUTS

    def _kernel(self) -> Tensor:
        """The weight; in training, where Rescale holds it at its limit, times 1 with the gradient of |A| / |A|.

        So the optimizer sees only the directions that the constraint leaves free (docs/theorems.md, E1).
        """
        weight = self.linear.weight
        if not (self.training and torch.is_grad_enabled() and type(self.policy) is Rescale):
            return weight
        z = self.schedule.step_size * smoothness(self.activation) * float(self.tracked_norm) ** 2
        if z < 0.999 * self.z_max:
            return weight
        if self._has_symbol:
            norm = symbols.gain(weight, self.power_vector)
        else:
            norm = self.linear(self.power_vector, self._on_input(weight)).norm()
        return weight * (norm.detach() / norm)

    @torch.no_grad()
    def _follow(self, norm: float) -> None:
        self.schedule = self.policy.schedule(smoothness(self.activation) * norm**2, self.z_max, self.time)
        if self.schedule.weight_factor != 1.0:
            self.linear.weight.mul_(self.schedule.weight_factor)
            self.tracked_norm.mul_(self.schedule.weight_factor)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        field = self._field(x, scale)
        for _ in range(self.schedule.steps):
            x = self._step(x, field)
        return x

    def _maps(self, size: Sequence[int]) -> tuple[spectral.LinearFunction, spectral.LinearFunction]:
        """A and A^T on inputs of a spatial size; the kernel is built once for both."""
        weight = self._on_input(self._kernel())
        return lambda x: self.linear(x, weight), lambda y: self.linear.adjoint(y, size, weight)

    def _on_input(self, weight: Tensor) -> Tensor:
        """A weight as the map applies it to its input (polyphase maps hold one for the image)."""
        return self.linear.polyphase_weight(weight) if type(self.linear) is PolyphaseConv2d else weight

    def _field(self, x: Tensor, scale: Tensor | None):
        size = list(x.shape[2:])
        bias = self.bias
        if bias is not None:
            bias = bias.repeat_interleave(4) if isinstance(self.linear, PolyphaseConv2d) else bias
            bias = bias.reshape(-1, *[1] * len(size))

        def response(u: Tensor) -> Tensor:
            return perspective(self.activation, u if bias is None else u + bias, scale)

        rowwise = scale is None or scale.ndim < 2 or scale.shape[-2] == 1
        if x.device.type == "cpu" and rowwise and not torch.is_grad_enabled() and is_plain(self.linear):
            kernel = self._on_input(self._kernel())
            return lambda x: -in_strips(x, kernel, response)
        linear, adjoint = self._maps(size)
        return lambda x: -adjoint(response(linear(x)))

    def _step(self, x: Tensor, field) -> Tensor:
        """k_i = f(x + h sum_j a_ij k_j), x + h sum_i b_i k_i."""
        h, stages = self.schedule.step_size, []
        for row in self.tableau.a:
            point = x
            for a, k in zip(row, stages, strict=False):
                point = point if a == 0 else point + h * float(a) * k.to(x.dtype)
            stages.append(field(point))
        for b, k in zip(self.tableau.b, stages, strict=True):
            x = x if b == 0 else x + h * float(b) * k.to(x.dtype)
        return x

    def extra_repr(self) -> str:
        return f"tableau={self.tableau.name}, policy={self.policy}, fraction={self.fraction}, schedule={self.schedule}"


def _refresh(block: GradientFlow, _: object) -> None:
    """New weights: the schedule follows them, whatever the mode."""
    if block.training:
        block._follow(float(block.tracked_norm))
    else:
        block._follow(block.spectral_norm_bound())


@rule(GradientFlow)
def _certify(block: GradientFlow) -> CertificateTree:
    if type(block.linear) not in MAPS or type(block.policy) not in POLICIES:
        raise NotCertified(f"a block over {type(block.linear).__name__} with {block.policy!r} has no proof")
    if type(block.tableau) is not ButcherTableau or type(block.schedule) is not Schedule:
        raise NotCertified(f"a block with tableau {block.tableau!r} and schedule {block.schedule!r} has no proof")
    require_unaltered(block.linear)
    require_unaltered(block.activation)
    slope_interval(block.activation)
    z, tableau, steps = block.z, block.tableau, block.schedule.steps
    nonexpansive = tableau.is_nonexpansive(z)
    one = Certificate(1.0, tableau.averagedness(z)) if nonexpansive else Certificate(tableau.lipschitz(z))
    relation = "<=" if nonexpansive else "exceeds"
    norm = math.sqrt(z / (block.schedule.step_size * smoothness(block.activation))) if z else 0.0
    reason = (
        f"{steps} x {tableau.name}, h={block.schedule.step_size:.5g}, |A| <= {norm:.5g}, "
        f"z={z:.5g} {relation} 2r={2 * tableau.circle_contractivity_radius:.5g}"
    )
    return CertificateTree("GradientFlow", compose([one] * steps), reason)
