"""The commands name the rung they stand on, choose it from the denoiser, and refuse a rung that the denoiser does not have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pnp.cli
from pnp import strengths
from pnp.cli import rungs
from stablenet.images.decoding import InputError
from tests.inventory.denoisers import Shrinkage
from tests.inventory.energies import Bent
from tests.inventory.guided import Guided

DENOISERS: dict[str, Callable[[], nn.Module]] = {
    "convex": Bent,
    "averaged": Shrinkage,
    "weakly-convex": lambda: Bent(mu=1.0, rho=0.1),
    "guided": Guided,
}


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    steps = torch.rand(4, 4, generator=generator).repeat_interleave(9, 0).repeat_interleave(8, 1)
    from PIL import Image

    Image.fromarray((255 * steps).to(torch.uint8).numpy()).save(tmp_path / "photo.png")
    np.save(tmp_path / "kernel.npy", np.full((3, 3), 1 / 9))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, rung: str, *arguments: str) -> dict:
    monkeypatch.setattr("pnp.cli.inputs.load_denoiser", lambda name: DENOISERS[rung]())
    pnp.cli.main(["deblur", "photo.png", "--simulate", "--kernel", "kernel.npy", *arguments])
    return json.loads(Path("pnp-output/run.json").read_text())


@pytest.mark.parametrize("rung", DENOISERS)
def test_a_denoiser_finds_its_rung(
    rung: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    facts, printed = run(monkeypatch, rung, "--denoiser", "mine"), capsys.readouterr().out
    assert facts["rung"]["name"] == rung and f"rung         {rung}: " in printed and facts["exit_reason"] == "converged"
    explicit = rung in ("convex", "weakly-convex")
    assert facts["settings"]["algorithm"] == ("descent" if explicit else "pgd")
    if explicit:
        assert facts["settings"]["scheme"] == "quasi-newton" and "energy       F fell from" in printed
        assert facts["assumptions"] == [pnp.guarantees.ARITHMETIC] and facts["energies"][-1] <= facts["energies"][0]
    assert ("this rung gives up" in printed) == (rung in ("weakly-convex", "guided"))
    assert len(facts["refreshes"]) == (2 if rung == "guided" else 0)


def test_a_rung_that_the_denoiser_lacks_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rungs.rung_of(Bent(), None).name == "convex"
    with pytest.raises(InputError, match="--rung convex is not that of the denoiser Shrinkage, which stands on averaged"):
        rungs.rung_of(Shrinkage(), "convex")
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, "averaged", "--denoiser", "mine", "--rung", "convex")
    assert caught.value.code == 2


def test_a_strength_by_discrepancy_needs_a_run_without_a_guide(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, "guided", "--denoiser", "mine", "--strength", "discrepancy")
    assert caught.value.code == 2 and "needs a run without a guide" in capsys.readouterr().err


def test_the_rung_names_a_bundled_denoiser() -> None:
    assert rungs.denoiser_for("averaged", "deblurring", 1) == "denoiser-gray-small"
    assert rungs.denoiser_for("averaged", "denoising", 3) == "denoiser-color"
    assert rungs.denoiser_for(None, "denoising", 1) in pnp.cli.rungs.available()
    assert rungs.denoiser_for(None, "deblurring", 1) == "deblurring-gray-guided"
    assert rungs.denoiser_for(None, "deblurring", 1, guided=False) == "ridge-gray"


def test_the_ladder_is_read_from_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    row = strengths.Row("deblurring", "convex", "Descent", "a", 1, 0.03, 2.0, 0.5, 25.0, "8 crops")
    table = (row, strengths.Row("deblurring", "averaged", "PGD", "b", 1, 0.03, 1.0, 0.3, 24.5, "8 crops"))
    monkeypatch.setattr("pnp.cli.rungs.rows", lambda: table)
    lines = rungs.told(rungs.rung_named("convex"), "deblurring", 0.04, 1)
    assert lines[1] == "ladder       measured at noise 0.03 (8 crops): 25.00 dB here, averaged -0.50 dB"
    assert len(rungs.told(rungs.rung_named("convex"), "deblurring", 0.04, 3)) == 1  # nothing was measured in color


def test_strengths_are_interpolated_in_the_logarithm(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(noise: float, level: float) -> strengths.Row:
        return strengths.Row("deblurring", "convex", "Descent", "a", 1, noise, level, 0.5, 25.0, "crops")

    monkeypatch.setattr("pnp.strengths.rows", lambda: (made(0.01, 4.0), made(0.04, 1.0)))
    found = [strengths.chosen("Descent", "convex", noise) for noise in (0.005, 0.01, 0.02, 0.04, 0.09)]
    assert [pytest.approx(pair) for pair in found] == [(4.0, 0.5), (4.0, 0.5), (2.0, 0.5), (1.0, 0.5), (1.0, 0.5)]
    assert strengths.chosen("Descent", "averaged", 0.02) is None


@pytest.mark.parametrize("rung", DENOISERS)
def test_denoising_tells_its_rung(
    rung: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("pnp.cli.inputs.load_denoiser", lambda name: DENOISERS[rung]())
    pnp.cli.main(["denoise", "photo.png", "--simulate", "--denoiser", "mine"])
    facts = json.loads(Path("pnp-output/run.json").read_text())
    assert facts["rung"]["name"] == rung and facts["psnr"]["after"] > facts["psnr"]["before"]
    assert (0 < facts["error_bound"] <= 2e-4) == (rung in ("convex", "weakly-convex"))
