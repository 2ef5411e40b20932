"""Gradient-flow blocks: n steps of an explicit Runge-Kutta method for x' = -A^T sigma(A x + b).

Source: [Sherry2024] for the block, [DahlquistJeltsch1979] for z <= 2 r, docs/theorems.md T1 to T5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stablenet import spectral
from stablenet.activations import smoothness
from stablenet.blocks.flow import Flow, certify_flow
from stablenet.certificate import CertificateTree, NotCertified, rule
from stablenet.enforcement import Policy, Rescale, Schedule, Step, Substeps
from stablenet.linear import is_plain
from stablenet.spectral import symbols
from stablenet.tableaus import EULER, ButcherTableau

COLD_ITERATIONS = 50
SYMBOL_INPUTS = 4
POLICIES = (Substeps, Step, Rescale)


class GradientFlow(Flow):
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
        if type(policy) not in POLICIES:
            raise NotCertified(f"policy must be Substeps(), Step() or Rescale(), got {policy!r}")
        if tableau.circle_contractivity_radius <= 0:
            raise ValueError(
                f"{tableau.name} has circle-contractivity radius 0: no step of it is nonexpansive for every gradient flow; "
                "use Euler, Heun, Ralston2, SSPRK3, Kutta3, Ralston3, RK4 or RK38"
            )
        if not (time > 0 and math.isfinite(time)) or not 0 < fraction <= 1:
            raise ValueError(f"time must be positive and fraction in (0, 1], got time={time}, fraction={fraction}")
        super().__init__(linear, activation, tableau, Schedule(1, 0.0), bias=bias)
        self.policy, self.time, self.fraction = policy, time, fraction
        self.tolerance, self.max_iterations = tolerance, max_iterations
        generator = torch.Generator().manual_seed(0)
        shape = (2, *linear.weight.shape[1:]) if is_plain(linear) else (1, *linear.example_shape)
        start = torch.randn(shape, generator=generator)
        self.register_buffer("power_vector", start / start.norm())
        many = is_plain(linear) and linear.inputs > SYMBOL_INPUTS
        self.register_buffer("directions", symbols.start(linear.weight, generator) if many else None)
        self.register_buffer("tracked_norm", torch.zeros((), dtype=torch.float64))
        self._track(COLD_ITERATIONS)
        self.register_load_state_dict_post_hook(_refresh)

    @property
    def z_max(self) -> float:
        """theta 2 r: the largest h L |A|^2 that the policy lets through (a hair below, for rounding)."""
        return self.fraction * 2 * min(self.tableau.circle_contractivity_radius, 1e6) * (1 - 1e-9)

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
        if is_plain(self.linear):
            norm, vector = self._wave(iterations)
        else:
            weight, size = self.linear.weight, self.power_vector.shape[2:]
            norm, vector, _ = spectral.power_iteration(
                lambda x: self.linear(x, weight),
                self.power_vector,
                adjoint=lambda y: self.linear.adjoint(y, size, weight),
                tolerance=self.tolerance,
                max_iterations=iterations,
                previous=float(self.tracked_norm),
            )
        if not math.isfinite(norm):
            raise ValueError("the weights of a gradient-flow block hold NaN or infinity: restore a checkpoint")
        self.power_vector.copy_(vector)
        self.tracked_norm.fill_(norm)
        self._follow(norm)

    def _wave(self, iterations: int) -> tuple[float, Tensor]:
        """The plane wave that a convolution amplifies most, and by how much: exact for few inputs, followed for many."""
        if self.directions is None:
            wave = symbols.peak(self.linear.weight)
            return float(symbols.gain(self.linear.weight, wave)), wave
        norm = float(self.tracked_norm)
        for _ in range(iterations):
            previous = norm
            norm, wave, directions = symbols.follow(self.linear.weight, self.directions)
            self.directions.copy_(directions)
            if abs(norm - previous) <= self.tolerance * norm:
                break
        return norm, wave

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
        if is_plain(self.linear):
            norm = symbols.gain(weight, self.power_vector)
        else:
            norm = self.linear(self.power_vector, weight).norm()
        return weight * (norm.detach() / norm)

    @torch.no_grad()
    def _follow(self, norm: float) -> None:
        self.schedule = self.policy.schedule(smoothness(self.activation) * norm * norm, self.z_max, self.time)
        if self.schedule.weight_factor != 1.0:
            self.linear.weight.mul_(self.schedule.weight_factor)
            self.tracked_norm.mul_(self.schedule.weight_factor)

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
    if type(block.policy) not in POLICIES:
        raise NotCertified(f"a block with {block.policy!r} has no proof")
    return certify_flow(block)
