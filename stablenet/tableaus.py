"""The explicit Runge-Kutta methods by name: nothing but their tables.

Source: [DahlquistJeltsch1979] for their radii, [Ketcheson2008] for SSPRK(s, 2); what follows from them is
`stablenet.butcher`.
"""

from __future__ import annotations

from fractions import Fraction

from stablenet.butcher import ButcherTableau


def euler_substeps(s: int) -> ButcherTableau:
    """s Euler steps of length 1/s: radius s."""
    return EULER.substeps(s)


def ssprk2(s: int) -> ButcherTableau:
    """The optimal strong-stability-preserving method SSPRK(s, 2), s >= 2: radius s - 1. [Ketcheson2008]"""
    if s < 2:
        raise ValueError(f"SSPRK(s, 2) needs s >= 2 stages, got {s}")
    row = [Fraction(1, s - 1)] * s
    return ButcherTableau([row[:i] + [Fraction(0)] * (s - i) for i in range(s)], [Fraction(1, s)] * s, f"SSPRK({s},2)")


_F = Fraction
EULER = ButcherTableau([[0]], [1], "Euler")
HEUN = ButcherTableau([[0, 0], [1, 0]], [_F(1, 2)] * 2, "Heun")
MIDPOINT = ButcherTableau([[0, 0], [_F(1, 2), 0]], [0, 1], "explicit midpoint")
RALSTON2 = ButcherTableau([[0, 0], [_F(2, 3), 0]], [_F(1, 4), _F(3, 4)], "Ralston2")
SSPRK3 = ButcherTableau([[0] * 3, [1, 0, 0], [_F(1, 4)] * 2 + [0]], [_F(1, 6), _F(1, 6), _F(2, 3)], "SSPRK3")
KUTTA3 = ButcherTableau([[0] * 3, [_F(1, 2), 0, 0], [-1, 2, 0]], [_F(1, 6), _F(2, 3), _F(1, 6)], "Kutta3")
HEUN3 = ButcherTableau([[0] * 3, [_F(1, 3), 0, 0], [0, _F(2, 3), 0]], [_F(1, 4), 0, _F(3, 4)], "Heun3")
RALSTON3 = ButcherTableau([[0] * 3, [_F(1, 2), 0, 0], [0, _F(3, 4), 0]], [_F(2, 9), _F(1, 3), _F(4, 9)], "Ralston3")
RK4 = ButcherTableau(
    [[0] * 4, [_F(1, 2), 0, 0, 0], [0, _F(1, 2), 0, 0], [0, 0, 1, 0]],
    [_F(1, 6), _F(1, 3), _F(1, 3), _F(1, 6)],
    "RK4",
)
RK38 = ButcherTableau(
    [[0] * 4, [_F(1, 3), 0, 0, 0], [_F(-1, 3), 1, 0, 0], [1, -1, 1, 0]],
    [_F(1, 8), _F(3, 8), _F(3, 8), _F(1, 8)],
    "RK38",
)
SSPRK43 = ButcherTableau(
    [[0] * 4, [_F(1, 2), 0, 0, 0], [_F(1, 2), _F(1, 2), 0, 0], [_F(1, 6)] * 3 + [0]],
    [_F(1, 6), _F(1, 6), _F(1, 6), _F(1, 2)],
    "SSPRK(4,3)",
)
DORMAND_PRINCE = ButcherTableau(
    [
        [0] * 7,
        [_F(1, 5)] + [0] * 6,
        [_F(3, 40), _F(9, 40)] + [0] * 5,
        [_F(44, 45), _F(-56, 15), _F(32, 9)] + [0] * 4,
        [_F(19372, 6561), _F(-25360, 2187), _F(64448, 6561), _F(-212, 729)] + [0] * 3,
        [_F(9017, 3168), _F(-355, 33), _F(46732, 5247), _F(49, 176), _F(-5103, 18656)] + [0] * 2,
        [_F(35, 384), 0, _F(500, 1113), _F(125, 192), _F(-2187, 6784), _F(11, 84), 0],
    ],
    [_F(35, 384), 0, _F(500, 1113), _F(125, 192), _F(-2187, 6784), _F(11, 84), 0],
    "Dormand-Prince 5",
)
