"""Every proximal map, with the step at which it jumps where it is not continuous."""

from __future__ import annotations

from stablenet import proximal

CONVEX: dict[str, proximal.Proximal] = {
    "nonnegative": proximal.Nonnegative(),
    "shifted": proximal.ShiftedNonnegative(0.1),
    "soft": proximal.SoftThreshold(0.2),
    "leaky": proximal.LeakyNonnegative(0.25),
    "group-soft": proximal.GroupSoftThreshold(0.3, 4),
    "scaled": proximal.Scaled(proximal.Nonnegative(), 0.7),
    "scaled-soft": proximal.Scaled(proximal.SoftThreshold(0.1), 0.9),
    "scaled-group": proximal.Scaled(proximal.GroupSoftThreshold(0.2, 2), 0.5),
}
NONCONVEX: dict[str, proximal.Proximal] = {
    "hard": proximal.HardThreshold(0.08),
    "maximum": proximal.GroupMaximum(4),
    "scaled-hard": proximal.Scaled(proximal.HardThreshold(0.05), 0.8),
}
PROXIMAL = CONVEX | NONCONVEX
