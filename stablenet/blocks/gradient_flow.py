"""Gradient-flow blocks: n steps of an explicit Runge-Kutta method for x' = -A^T sigma(A x + b), kept nonexpansive.

Source: [Sherry2024] for the block, [DahlquistJeltsch1979] for z <= 2 r, docs/theorems.md T1 to T5, E1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stablenet.activations import smoothness
from stablenet.blocks.flow import Flow, RungeKutta, certify_flow, plain_form
from stablenet.blocks.measured import MeasuredNorm
from stablenet.butcher import ButcherTableau
from stablenet.certificate import CertificateTree, NotCertified, rule
from stablenet.enforcement import Policy, Rescale, Schedule, Step, Substeps
from stablenet.following import FollowedNorm
from stablenet.linear import WeightedMap
from stablenet.tableaus import EULER

POLICIES = (Substeps, Step, Rescale)
ROUNDS = 3
"""A rescaled weight is rounded to its precision, so that its norm is looked at again, so many times at most."""


class GradientFlow(RungeKutta):
    """x -> n steps of length h of `tableau` for the field f(x) = -A^T sigma(A x + b); nonexpansive if h L |A|^2 <= 2 r.

    n and h are a function of the weights, read when needed: in evaluation mode by the certified norm, in training mode by the
    followed one, if `stablenet.enforce` or a training follows it. Weights are changed by `stablenet.enforce` alone.

    Parameters
    ----------
    linear : A, a map of `stablenet.linear` or registered with its `block_map` (it has an exact adjoint).
    activation : sigma, nondecreasing: torch's ReLU, LeakyReLU (slope in [0, 1]), ELU, Softplus, Tanh, Sigmoid, Hardtanh
        or `stablenet.activations` Clamp and LinearSpline. Its L is read at construction and by `enforce`.
    tableau : a method with positive circle-contractivity radius r, read like L.
    time : T = n h, the time to integrate over (the most, under the policy Step).
    policy : Substeps(), Step() or Rescale(): what yields when the norm grows.
    fraction : theta in (0, 1], the share of the admissible z = 2 r that is used.
    bias : whether b is learned (one a channel of A's output) or absent.
    tolerance, max_iterations : of the warm power iteration that follows |A| while training.

    Shapes: (batch, inputs, ...) to the same. forward(x, scale) replaces sigma(u) by scale sigma(u / scale); scale > 0
    broadcasts against A x.

    Raises
    ------
    ValueError : radius 0 (explicit midpoint, Heun3, Dormand-Prince), or a parameter out of range.
    NotCertified : the map or the activation is not one for which a proof exists.
    """

    def __init__(
        self,
        linear: WeightedMap,
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
        super().__init__(linear, activation, tableau, bias=bias)
        self.policy, self.time, self.fraction = policy, time, fraction
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self._read()
        self.followed: FollowedNorm | None = None
        self._fixed: Schedule | None = None
        self._measured = MeasuredNorm()

    def _read(self) -> None:
        """What the step takes for granted of activation and tableau; `certify` looks at both as they are."""
        self.slope, self.radius = smoothness(self.activation), self.tableau.circle_contractivity_radius

    @property
    def z_max(self) -> float:
        """theta 2 r: the largest h L |A|^2 that the policy lets through (a hair below, for rounding)."""
        return self.fraction * 2 * min(self.radius, 1e6) * (1 - 1e-9)

    @property
    def schedule(self) -> Schedule:
        """What forward applies. Setting it fixes it, whatever the weights, until the next `enforce`."""
        if self._fixed is not None:
            return self._fixed
        if not self.policy.reads_norm:
            return self._by_policy(0.0)
        followed = self.followed if self.training else None
        return self._by_policy(self._measured.of(self.linear) if followed is None else followed.norm)

    @schedule.setter
    def schedule(self, schedule: Schedule) -> None:
        self._fixed = schedule

    def schedule_in_evaluation(self) -> Schedule:
        if self._fixed is not None:
            return self._fixed
        self._measured.forget()
        return self._by_policy(self._measured.of(self.linear) if self.policy.reads_norm else 0.0)

    def _by_policy(self, norm: float) -> Schedule:
        return self.policy.schedule(self.slope * norm * norm, self.z_max, self.time)

    def constrained_parameters(self) -> tuple[nn.Parameter, ...]:
        """What `enforce` keeps within bounds."""
        return (self.linear.weight,)

    def follow(self) -> FollowedNorm:
        """Begin to follow |A| afresh, for training; the weight stays as it is."""
        self.followed = FollowedNorm(self.linear, tolerance=self.tolerance, max_iterations=self.max_iterations)
        return self.followed

    @torch.no_grad()
    def enforce(self, *, certified: bool = False) -> None:
        """Bring the weight within what the policy needs: by the followed norm in training mode, or by the certified one.

        Raises
        ------
        ValueError : the weights hold NaN or infinity, or the policy cannot meet its cap.
        """
        self._read()
        self._fixed = None
        certified = certified or not self.training
        for _ in range(ROUNDS if certified else 1):
            norm = self.spectral_norm_bound() if certified else self._followed_norm()
            self.policy.require(self.slope * norm * norm, self.z_max, self.time)
            factor = self._by_policy(norm).weight_factor
            if factor == 1.0:
                break
            self.linear.weight.mul_(factor)
            if self.followed is not None:
                self.followed.scaled(factor)

    def _followed_norm(self) -> float:
        if self.followed is None or self.followed.linear is not self.linear:
            return self.follow().norm
        return self.followed.update()

    def _weight(self) -> Tensor:
        """The weight; in training, where Rescale holds it at its limit, times 1 with the gradient of |A| / |A|.

        So the optimizer sees only the directions that the constraint leaves free (docs/theorems.md, E1).
        """
        weight, followed = self.linear.weight, self.followed
        if followed is None or self.policy.reads_norm or not (self.training and torch.is_grad_enabled()):
            return weight
        if self.schedule.step_size * self.slope * followed.norm**2 < 0.999 * self.z_max:
            return weight
        norm = followed.gain(weight)
        return weight * (norm.detach() / norm)

    def extra_repr(self) -> str:
        return f"tableau={self.tableau.name}, policy={self.policy}, fraction={self.fraction}, time={self.time}"


@plain_form(GradientFlow)
def _plain(block: GradientFlow) -> Flow:
    schedule = block.schedule_in_evaluation()
    flow = Flow(block.linear, block.activation, block.tableau, schedule, bias=block.bias is not None)
    flow.bias = block.bias
    return flow.train(block.training)


@rule(GradientFlow)
def _certify(block: GradientFlow) -> CertificateTree:
    if type(block.policy) not in POLICIES:
        raise NotCertified(f"a block with {block.policy!r} has no proof")
    return certify_flow(block)
