"""Every scheme."""

from __future__ import annotations

from typing import Any

import pnp
from pnp.schemes import Scheme

SCHEMES: dict[str, Scheme[Any]] = {
    "plain": pnp.Plain(),
    "overrelaxed": pnp.Overrelaxed(1.03),
    "halpern": pnp.Halpern(),
    "anderson": pnp.Anderson(),
    "anderson-2": pnp.Anderson(memory=2),
}
