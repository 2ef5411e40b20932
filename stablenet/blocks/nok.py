"""Blocks whose steps descend on |R x - D y|^2/2 + phi(y), and how Lipschitz T steps are.

Source: [LyuTsang2021]; descent, averagedness of a step and the constants of T steps are docs/theorems.md, K2 to K5.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from fractions import Fraction

import torch
from torch import Tensor, nn

from stablenet.certificate import Certificate, CertificateTree, NotCertified, compose, rule
from stablenet.linear import Frame, Rotation, parseval
from stablenet.proximal import Proximal, Scaled
from stablenet.rounding import fine_up, root_up, round_up, up
from stablenet.sectors import Sector, sector

NONEXPANSIVE_SCALE = 0.7747
"""With c h in place of h, c^2 (2 - c)^2 <= 4 (1 - c), a block is nonexpansive at every depth: up to .77472957. This is a hair
less, for frames and rotations that are known up to rounding."""

LARGEST_DEFECT = 1e-3
"""Of |D D^T - I|: beyond it a matrix is no Parseval frame that was rounded."""


class NOK(nn.Module):
    """y_0 = 0, y+ = h(D^T u + (I - D^T D) y), u = R x: `steps` proximal-gradient steps of length one; the last y is given.

    Parameters
    ----------
    frame : D, of `stablenet.linear.frames` or with a rule of `stablenet.linear.parseval`.
    prox : h, of `stablenet.proximal`; phi is its function.
    steps : T >= 1.
    rotation : R, an orthogonal map of `stablenet.linear.rotation`, or None for the identity.
    scale : c in (0, 1], h is replaced by c h; nonexpansive at every depth for c <= NONEXPANSIVE_SCALE.
    tied : whether all steps share R, else each has a copy of its own: then no one objective falls.

    Shapes: x (..., dimension) to (..., size) for frames of vectors, (batch, dimension, height, width) to (batch, size, height,
    width) for frames of images.

    Raises
    ------
    ValueError : steps, scale or sizes that do not fit, a frame or a rotation that is none; x of another shape, complex, or
        with NaN or infinity.
    NotCertified : no proof speaks of the frame or of the rotation.
    """

    def __init__(
        self,
        frame: Frame,
        prox: Proximal,
        *,
        steps: int = 5,
        rotation: Rotation | None = None,
        scale: float = 1.0,
        tied: bool = True,
    ) -> None:
        super().__init__()
        if type(steps) is not int or steps < 1:
            raise ValueError(f"steps must be an integer of at least 1, got {steps!r}")
        if not 0 < scale <= 1:
            raise ValueError(f"scale must lie in (0, 1], got {scale!r}: 1 is h itself, {NONEXPANSIVE_SCALE} nonexpansive")
        if not isinstance(prox, Proximal):
            raise ValueError(f"prox must be a proximal map of stablenet.proximal, got {prox!r}")
        _require_parseval(frame)
        if rotation is None and not tied:
            raise ValueError("tied=False gives each step a rotation of its own, so it needs a rotation")
        if rotation is not None:
            _require_parseval(rotation)
            if (rotation.dimension, rotation.axis) != (frame.dimension, frame.axis):
                raise ValueError(
                    f"the rotation of {rotation.dimension} features along axis {rotation.axis} does not fit the frame of "
                    f"dimension {frame.dimension} along axis {frame.axis}"
                )
        prox.prox(torch.zeros(frame.size))  # groups must divide the size
        self.frame, self.steps = frame, steps
        self.prox = prox if scale == 1 else Scaled(prox, float(scale))
        rotations = [] if rotation is None else [rotation] + [copy.deepcopy(rotation) for _ in range(0 if tied else steps - 1)]
        self.rotations = nn.ModuleList(rotations)  # type: ignore[arg-type]

    @property
    def tied(self) -> bool:
        return len(self.rotations) < 2

    def forward(self, x: Tensor) -> Tensor:
        """y_T."""
        for y in self.iterates(x):  # noqa: B007 - the last one counts
            pass
        return y

    def iterates(self, x: Tensor) -> Iterator[Tensor]:
        """y_1 to y_T."""
        require_signal(x, self.frame, self.training)
        y = None
        for k in range(self.steps):
            if k == 0 or not self.tied:
                shift = self.frame.adjoint(self.rotated(x, k))
            y = self.prox.prox(shift if y is None else shift + self.frame.complement(y), self.frame.axis)
            yield y

    def descend(self, u: Tensor, y: Tensor) -> Tensor:
        """y+ for u = R x in place of x: the step that `stablenet.linear.rotation.alternating` takes."""
        return self.prox.prox(self.frame.adjoint(u) + self.frame.complement(y), self.frame.axis)

    def rotated(self, x: Tensor, step: int = 0) -> Tensor:
        """u = R x, at a step where each has its own."""
        return self.rotations[0 if self.tied else step](x) if len(self.rotations) else x

    def objective(self, x: Tensor, y: Tensor) -> Tensor:
        """Q(y) = |R x - D y|^2/2 + phi(y), c phi(y/c) + (1/c - 1)|y|^2/2 in place of phi where the block is scaled.

        Shapes: x and y as in `forward`; (...) for vectors, (batch,) for images.

        Raises
        ------
        ValueError : rotations are not tied, so that there is one objective a step.
        """
        if not self.tied:
            raise ValueError("a block whose steps have rotations of their own descends on no one objective: take tied=True")
        require_signal(x, self.frame, self.training)
        axis = self.frame.axis
        terms = (self.rotated(x) - self.frame(y)).square().sum(axis) / 2 + self.prox.value(y, axis)
        return terms if axis == -1 else terms.flatten(1).sum(1)

    def objectives(self, x: Tensor) -> Tensor:
        """Q(y_0), ..., Q(y_T), (steps + 1, batch): nonincreasing (docs/theorems.md, K2)."""
        points = list(self.iterates(x))
        return torch.stack([self.objective(x, y) for y in (torch.zeros_like(points[0]), *points)])

    def kernel(self, X: Tensor, Z: Tensor) -> Tensor:
        """K_T(x, z) = <y_T(x), y_T(z)>, of batches of n and of m to (n, m)."""
        return self(X).flatten(1) @ self(Z).flatten(1).T

    def step(self, x: Tensor) -> DescentStep:
        """y -> h(D^T u + (I - D^T D) y) for this x: 2/3-averaged for every convex phi.

        Raises
        ------
        ValueError : as `objective`.
        """
        if not self.tied:
            raise ValueError("a block whose steps have rotations of their own has no one step: take tied=True")
        require_signal(x, self.frame, self.training)
        with torch.no_grad():
            return DescentStep(self.frame, self.prox, self.frame.adjoint(self.rotated(x)))

    def extra_repr(self) -> str:
        return f"{self.prox}, steps={self.steps}, tied={self.tied}"


class DescentStep(nn.Module):
    """y -> h(shift + (I - D^T D) y), a step of a block with its input held fixed.

    Parameters
    ----------
    frame : D.
    prox : h.
    shift : D^T u, of y's shape.
    """

    shift: Tensor

    def __init__(self, frame: Frame, prox: Proximal, shift: Tensor) -> None:
        super().__init__()
        self.frame, self.prox = frame, prox
        self.register_buffer("shift", shift)

    def forward(self, y: Tensor) -> Tensor:
        return self.prox.prox(self.shift + self.frame.complement(y), self.frame.axis)


def lipschitz_of_steps(held: Sector, steps: int, *, defect: Fraction = Fraction(0), rows: bool = False) -> Fraction:
    """L_T of u -> y_T, or of u -> D y_T for `rows`, h in a sector, |D D^T - I| <= defect, rounded up (docs/theorems.md, K4).

    p and q bound the parts of y_t in the rows' space of D and in its kernel, r that of what h is applied to. With the sector
    [0, 1] and no defect: sqrt(1 + q_(T-1)^2), q_0 = 0, q_(t+1) = (q_t + sqrt(1 + q_t^2))/2, and (1 + sqrt(1 + q_(T-1)^2))/2.
    """
    middle, radius = (held.low + held.high) / 2, (held.high - held.low) / 2
    p = q = Fraction(0)
    for _ in range(steps):
        r = root_up(1 + defect) + defect * p
        length = root_up(r * r + q * q)
        p, q = (fine_up(abs(middle) * part + radius * length) for part in (r, q))
    return root_up(1 + defect) * p if rows else (abs(middle) + radius) * length


def _require_parseval(frame: Frame | Rotation) -> None:
    if not isinstance(frame, nn.Module):
        raise ValueError(f"a frame and a rotation are modules of stablenet.linear, got {type(frame).__name__}")
    defect = parseval.of(frame)
    if not defect <= LARGEST_DEFECT:
        raise ValueError(f"{type(frame).__name__} is no Parseval frame: |D D^T - I| <= {up(defect)}, where 0 is needed")


def require_signal(x: Tensor, frame: Frame, training: bool) -> None:
    """Refuse what is no real signal of the frame's dimension."""
    d = frame.dimension
    if x.is_complex() or not x.dtype.is_floating_point:
        raise ValueError(f"x must be real and of floating point, got {x.dtype}: give real and imaginary parts as two features")
    if x.ndim < 1 or x.shape[frame.axis % x.ndim] != d or (frame.axis == 1 and x.ndim != 4):
        shape = f"(..., {d})" if frame.axis == -1 else f"(batch, {d}, height, width)"
        raise ValueError(f"x must have shape {shape}, got {tuple(x.shape)}")
    if not (training or torch.compiler.is_compiling() or torch.isfinite(x.sum())):
        raise ValueError("x holds NaN or infinity: check what produced it")


@rule(NOK)
def _certify(block: NOK) -> CertificateTree:
    lipschitz, held, defect = constant_of(block)
    reason = f"{block.steps} steps, h in the sector [{up(held.low)}, {up(held.high)}], |D D^T - I| <= {up(defect)}"
    return CertificateTree("NOK", Certificate(round_up(lipschitz)), reason)


def constant_of(block: NOK, *, rows: bool = False) -> tuple[Fraction, Sector, Fraction]:
    """An upper bound of the Lipschitz constant of x -> y_T, or of x -> D y_T, with the sector and |D D^T - I| that it rests on.

    Raises
    ------
    NotCertified : no sector or no frame is known, or the steps are not as constructed.
    """
    if type(block.steps) is not int or block.steps < 1 or len(block.rotations) not in (0, 1, block.steps):
        raise NotCertified(f"a block of {block.steps!r} steps and {len(block.rotations)} rotations has no proof")
    held, defect = sector.of(block.prox), Fraction(parseval.of(block.frame))
    turns = [root_up(1 + Fraction(parseval.of(rotation))) for rotation in block.rotations]
    lipschitz = lipschitz_of_steps(held, block.steps, defect=defect, rows=rows) * max(turns, default=Fraction(1))
    return lipschitz, held, defect


@rule(DescentStep)
def _certify_step(step: DescentStep) -> CertificateTree:
    held, defect = sector.of(step.prox), Fraction(parseval.of(step.frame))
    if not (held.high <= 1 and defect <= 1):
        raise NotCertified(f"a step with h in the sector [{up(held.low)}, {up(held.high)}] is not proved to be averaged")
    gradient = Certificate(1.0, round_up((1 + defect) / 2))
    total = compose([gradient, Certificate(round_up(held.high), round_up((1 - held.low) / 2))])
    return CertificateTree("DescentStep", total, "a proximal map after a step of length one along the gradient")
