"""Spectral norms of linear layers: certified upper bounds, and power iterations, which are lower bounds."""

from stablenet.spectral import layers
from stablenet.spectral.bounds import (
    UnboundedError,
    bound,
    convolution_upper_bound,
    lower_bound,
    matrix_upper_bound,
    upper_bound,
)
from stablenet.spectral.power import jacobian_norm, power_iteration

__all__ = [
    "UnboundedError",
    "bound",
    "convolution_upper_bound",
    "jacobian_norm",
    "layers",
    "lower_bound",
    "matrix_upper_bound",
    "power_iteration",
    "upper_bound",
]
