"""Every algorithm, with its settings left to be settled."""

from __future__ import annotations

import pnp
from pnp.algorithms import Algorithm

ALGORITHMS: dict[str, Algorithm] = {
    "pgd": pnp.PGD(),
    "hqs": pnp.HQS(),
    "admm": pnp.ADMM(),
    "drs": pnp.DRS(),
    "red": pnp.RED(),
    "condat-vu": pnp.CondatVu(),
    "condat-vu-smooth": pnp.CondatVu(fidelity="smooth"),
    "condat-vu-box": pnp.CondatVu(box=True),
}
