"""Every tableau with its radius."""

from __future__ import annotations

import math

from stablenet import tableaus

RADII = {
    tableaus.EULER: 1.0,
    tableaus.HEUN: 1.0,
    tableaus.MIDPOINT: 0.0,
    tableaus.RALSTON2: (math.sqrt(21) - 3) / 2,
    tableaus.SSPRK3: 1.0,
    tableaus.KUTTA3: 0.5,
    tableaus.HEUN3: 0.0,
    tableaus.RALSTON3: 4 / (2 + math.sqrt(6)),
    tableaus.RK4: 1.0,
    tableaus.RK38: 2 * math.sqrt(3) - 3,
    tableaus.SSPRK43: 2.0,
    tableaus.DORMAND_PRINCE: 0.0,
    tableaus.euler_substeps(3): 3.0,
    tableaus.ssprk2(3): 2.0,
    tableaus.ssprk2(5): 4.0,
}
CONTRACTIVE = [tableau for tableau, radius in RADII.items() if radius > 0]
