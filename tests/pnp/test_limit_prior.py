"""The limit of a block as a prior: every algorithm runs on it, its error is carried, none is hidden (docs/theorems.md, K6)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pnp
import stablenet.potential
from pnp import explicit
from stablenet import proximal
from stablenet.blocks import NOK
from stablenet.networks import NOKLimit, Symmetrized
from tests.inventory.algorithms import ALGORITHMS
from tests.inventory.limits import LIMITS, Wavelets
from tests.inventory.physics import PHYSICS

LEVEL = 0.05


def prior(name: str = "soft") -> pnp.Prior:
    return pnp.prior(LIMITS[name]())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_takes_it(algorithm: str) -> None:
    problem, stop = PHYSICS["blur_fft"].pose(), pnp.Stop(1e-3, 1000)
    solution = pnp.solve(ALGORITHMS[algorithm], problem, prior("soft-scaled"), stop=stop, denoiser_noise_level=LEVEL)
    assert solution.converged and solution.guarantee.averagedness is not None


def test_algorithms_with_one_fixed_point_agree_with_the_minimizer() -> None:
    """gamma f + sigma^2 R(x/sigma), R the proximal potential: PGD's limit is ADMM's, at the same step size."""
    problem, stop = PHYSICS["denoising"].pose(), pnp.Stop(1e-6, 500)
    found = [
        pnp.solve(algorithm, problem, prior("soft-scaled"), stop=stop, denoiser_noise_level=LEVEL).estimate
        for algorithm in (pnp.PGD(0.9), pnp.ADMM(0.9), pnp.DRS(0.9))
    ]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-3)


def test_the_error_is_asked_for_and_carried() -> None:
    limit, x = LIMITS["soft"](), PHYSICS["blur_fft"].image()
    exact, _ = explicit.within(limit, x, LEVEL, 1e-7)
    for wrapper in (limit, pnp.Clipped(limit), pnp.Relaxed(limit, 0.5), pnp.DeepinvDenoiser(limit)):
        image, error = explicit.within(wrapper, x, LEVEL, 1e-3)
        reference, slack = explicit.within(wrapper, x, LEVEL, 1e-7)
        assert 0 < float(error) <= 1e-3 and float((image - reference).norm()) <= float(error + slack)
    color = torch.cat([x, x.flip(-1), 1 - x], 1)
    image, error = explicit.within(pnp.Channelwise(limit), color, LEVEL, 1e-3)
    assert image.shape == color.shape and error.shape == (1,) and 0 < float(error) <= 1e-3
    torch.testing.assert_close(image[:, :1], exact, rtol=0, atol=1e-3)
    problem, denoise = PHYSICS["blur_fft"].pose(), prior().at(LEVEL)
    for algorithm in (pnp.PGD(), pnp.HQS(), pnp.ADMM(), pnp.DRS(), pnp.RED(), pnp.CondatVu()):
        settled = algorithm.settle(problem, prior())
        point = settled.start(problem, problem.start)
        rough, fine = (settled.apply(problem, denoise, point, accuracy=a) for a in (1e-2, 1e-6))
        apart = settled.norm(problem, tuple(a - b for a, b in zip(rough.point, fine.point, strict=True)))
        assert 0 < float(apart) <= float(rough.error) + float(fine.error)


def test_an_error_that_nobody_tells_is_refused() -> None:
    problem = PHYSICS["denoising"].pose()
    with pytest.raises(pnp.Refused, match="the NOKLimit inside is a proximal operator known up to an error"):
        pnp.solve(pnp.PGD(), problem, pnp.prior(Symmetrized(LIMITS["soft"]())), denoiser_noise_level=LEVEL)

    class Quicker(NOKLimit):
        """Its class has no proof, and so no prior."""

    with pytest.raises(pnp.Refused, match="does not inherit the proof of NOKLimit"):
        pnp.prior(Quicker(LIMITS["soft"]().block))

    class Silent(nn.Module):
        """Says that it iterates and gives no error."""

        def forward(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
            return x

    stablenet.potential.bounded_error(Silent)(lambda module: "claimed")
    with pytest.raises(pnp.Refused, match="Silent tells no error"):
        explicit.within(Silent(), problem.start, LEVEL, 1e-3)


def test_a_block_that_has_no_limit_is_no_prior() -> None:
    limit = LIMITS["soft"]()
    limit.block = NOK(Wavelets(), proximal.HardThreshold(0.1))
    with pytest.raises(pnp.Refused, match="not convex"):
        pnp.prior(limit)
    with pytest.raises(pnp.Refused, match="not convex"):
        explicit.within(limit, torch.zeros(1, 1, 4, 4), LEVEL, 1e-3)


def test_what_it_was_made_for_is_asked() -> None:
    limit = NOKLimit(LIMITS["soft"]().block, max_noise_level=0.1)
    made = pnp.prior(limit)
    assert made.accepts.channels == 1 and made.accepts.max_noise_level == 0.1
    with pytest.raises(ValueError, match=r"outside the range \[0, 0.1\]"):
        made.at(0.2)
