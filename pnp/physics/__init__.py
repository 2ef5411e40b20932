"""What is proved of a physics: bounds of |A|^2 and of the least eigenvalue of A^T A, one rule per exact class.

A rule of your own: `@pnp.physics.rule(MyPhysics)` on a function that takes the physics and returns a `Smoothness`.
"""

from pnp.physics.convolution import kernel_norm_bound
from pnp.physics.diagonal import from_singular_values
from pnp.physics.nonnegative import nonnegative_bound
from pnp.physics.smoothness import Smoothness, at_size, certified_smoothness, checked, rule, smoothness_at_every_size

__all__ = [
    "Smoothness",
    "at_size",
    "certified_smoothness",
    "checked",
    "from_singular_values",
    "kernel_norm_bound",
    "nonnegative_bound",
    "rule",
    "smoothness_at_every_size",
]
