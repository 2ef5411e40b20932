"""The noise that a problem assumes: Gaussian of a known standard deviation, for images in [0, 1], and nothing else.

f(x) = 1/2 |Ax - y|^2 is the negative log-likelihood of that noise; for another model it is the wrong data fidelity.
"""

from __future__ import annotations

import math
from numbers import Real

from deepinv.physics import Denoising, GaussianNoise, LinearPhysics, NoiseModel, ZeroNoise

from pnp.bounds import Refused
from pnp.physics.alterations import made_by_constructor

_TOLERANCE = 0.01
_DENOISING_DEFAULT = 0.1
_SAYS_NOTHING = (ZeroNoise, NoiseModel)


def checked_noise_level(noise_level: float) -> float:
    """A standard deviation in (0, 1], or an error that says how to get one."""
    if isinstance(noise_level, bool) or not isinstance(noise_level, Real):
        raise TypeError(f"noise_level must be one number, got {type(noise_level).__name__}")
    value = float(noise_level)
    if value > 1 and math.isfinite(value):
        raise ValueError(
            f"noise_level={value:g} is too large: it is a standard deviation for images in [0, 1], such as 0.03; divide by "
            f"255 if it is meant for 8-bit images ({value / 255:.4g})"
        )
    if not (math.isfinite(value) and value > 0):
        raise ValueError(
            f"noise_level must be a positive standard deviation for images in [0, 1], such as 0.03; got {noise_level}"
        )
    return value


def check_noise_model(physics: LinearPhysics, noise_level: float) -> None:
    """Compare the noise that a physics says it adds with the one that is assumed.

    `ZeroNoise`, a Gaussian of deviation 0, a function of the user's own and the 0.1 that `Denoising()` has when nothing is
    said are taken as no statement.

    Raises
    ------
    Refused : noise that is not Gaussian, or a sensor that is not the identity.
    ValueError : Gaussian noise of another standard deviation (by more than 1 percent).
    """
    name, model = type(physics).__name__, physics.noise_model
    if not made_by_constructor(physics.sensor_model, type(physics)):
        raise Refused(
            f"{name} with a sensor_model of its own is not covered: the data fidelity is 1/2 |Ax - y|^2 for the linear A "
            "alone. Leave the sensor_model out to restore as if the sensor were linear."
        )
    if type(model) in _SAYS_NOTHING or not isinstance(model, NoiseModel):
        return
    if type(model) is not GaussianNoise:
        raise Refused(
            f"{name} with {type(model).__name__} is not covered: the data fidelity 1/2 |Ax - y|^2 is that of Gaussian noise. "
            "Stabilize the variance of the measurement first (Anscombe), or use "
            "physics.set_noise_model(deepinv.physics.ZeroNoise()) to restore by least squares all the same."
        )
    least, most = float(model.sigma.min()), float(model.sigma.max())
    default = isinstance(physics, Denoising) and math.isclose(most, _DENOISING_DEFAULT, rel_tol=1e-6)
    if most == 0 or default:
        return
    if max(most - noise_level, noise_level - least) > _TOLERANCE * noise_level:
        said = f"{most:.6g}" if least == most else f"{least:.6g} to {most:.6g}"
        raise ValueError(
            f"noise_level={noise_level:g}, but {name} says GaussianNoise(sigma={said}): pass noise_level={most:.6g}, or "
            "correct the noise_model of the physics (denoiser_noise_level= sets the strength alone)"
        )
