"""The noise that a problem assumes: Gaussian of a known standard deviation, for images in [0, 1], and nothing else.

f(x) = 1/2 |Ax - y|^2 is the negative log-likelihood of that noise; for another model it is the wrong data fidelity.
"""

from __future__ import annotations

import math
from numbers import Real

from deepinv.physics import Denoising, GaussianNoise, LinearPhysics, NoiseModel, UniformGaussianNoise, ZeroNoise

from pnp.bounds import Refused
from pnp.physics.alterations import made_by_constructor

_TOLERANCE = 0.01
_DENOISING_DEFAULT = 0.1


def checked_noise_level(noise_level: float) -> float:
    """A positive finite number, or an error that says what it stands for."""
    if isinstance(noise_level, bool) or not isinstance(noise_level, Real):
        raise TypeError(f"noise_level must be one number, got {type(noise_level).__name__}")
    if not (math.isfinite(noise_level) and noise_level > 0):
        raise ValueError(
            f"noise_level must be a positive standard deviation for images in [0, 1], such as 0.03; got {noise_level}"
        )
    return float(noise_level)


def check_noise_scale(noise_level: float, smoothness: float) -> None:
    """Refuse noise beyond what an image in [0, 1] becomes under A, max(1, |A|): it was meant for another scale."""
    if noise_level > max(1.0, math.sqrt(smoothness)):
        raise ValueError(
            f"noise_level={noise_level:g} is too large: it is a standard deviation for images in [0, 1], such as 0.03; divide "
            f"by 255 if it is meant for 8-bit images ({noise_level / 255:.4g})"
        )


def check_noise_model(physics: LinearPhysics, noise_level: float) -> None:
    """Compare the noise that a physics says it adds with the one that is assumed.

    `ZeroNoise`, a Gaussian of deviation 0, a model of the user's own and the 0.1 that `Denoising()` has when nothing is said
    are taken as no statement.

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
    kind = next((c for c in type(model).__mro__ if c.__module__.startswith("deepinv.")), NoiseModel)
    if kind in (ZeroNoise, NoiseModel):
        return
    if kind not in (GaussianNoise, UniformGaussianNoise):
        raise Refused(
            f"{name} with {type(model).__name__} is not covered: the data fidelity 1/2 |Ax - y|^2 is that of Gaussian noise. "
            "Stabilize the variance of the measurement first (Anscombe), or use "
            "physics.set_noise_model(deepinv.physics.ZeroNoise()) to restore by least squares all the same."
        )
    _check_deviation(physics, model, noise_level)


def _check_deviation(physics: LinearPhysics, model: GaussianNoise | UniformGaussianNoise, noise_level: float) -> None:
    """One deviation for all images, that which is assumed; of a random one, a possible value."""
    random = isinstance(model, UniformGaussianNoise)
    least, most = (model.sigma_min, model.sigma_max) if random else (model.sigma, model.sigma)
    least, most = float(least.min()), float(most.max())
    default = isinstance(physics, Denoising) and math.isclose(most, _DENOISING_DEFAULT, rel_tol=1e-6)
    allowed = _TOLERANCE * noise_level
    inside = least - allowed <= noise_level <= most + allowed
    if most == 0 or default or (inside and (random or most - least <= allowed)):
        return
    said = f"{most:.6g}" if least == most else f"{least:.6g} to {most:.6g}"
    raise ValueError(
        f"noise_level={noise_level:g}, but {type(physics).__name__} says {type(model).__name__}(sigma={said}): pass "
        f"noise_level={most:.6g}, or correct the noise_model of the physics (denoiser_noise_level= sets the strength alone)"
    )
