"""A guided denoiser trains by the one loop: its potential stays, its weights learn, and a run resumes to the same bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import stablenet
from stablenet.cli import main
from stablenet.evaluation import OwnGuide, evaluate
from stablenet.networks import Guided, RidgeArchitecture
from stablenet.training.checkpoint import read
from stablenet.training.denoiser import initial, train
from stablenet.training.recipe import GuidedRecipe
from stablenet.weights import load
from tests.inventory.potentials import wild_ridge
from tests.stablenet.trainings import Waves, guided_recipe


@pytest.fixture
def potential(tmp_path: Path) -> str:
    """A small weakly convex potential, on disk."""
    path = tmp_path / "potential.safetensors"
    stablenet.save(wild_ridge(RidgeArchitecture(filters=2, kernel_size=5)), path)
    return str(path)


def run(recipe: GuidedRecipe, folder: Path, stop: int | None = None) -> tuple[dict[str, Tensor], list[float]]:
    """Train to the end or to a step; what the checkpoint then holds, and the losses of the steps done."""
    losses = []
    for report, _ in train(recipe, Waves(), Waves(1), folder):
        losses.append(report.loss)
        if report.step == stop:
            break
    return read(folder / "checkpoint.safetensors")[0], losses


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, potential):
    whole, losses = run(guided_recipe(start=potential), tmp_path / "whole")
    assert run(guided_recipe(start=potential), tmp_path / "part", stop=8)[1] == losses[:8]
    resumed, rest = run(guided_recipe(start=potential), tmp_path / "part")
    assert rest == losses[6:] and whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_the_pictures_get_better_and_the_potential_stays(tmp_path, potential):
    recipe = guided_recipe(start=potential, noise_level=0.15, schedule_steps=90)
    begun = initial(recipe)
    before = evaluate(OwnGuide(begun), Waves(1), [0.15])[0.15]
    for report, average in train(recipe, Waves(), Waves(1), tmp_path / "run"):
        if report.validation:
            after = report.validation["psnr_38"]
            assert stablenet.certify(average).averagedness == 0.5
    assert isinstance(average, Guided)
    assert after > before + 0.1
    x = torch.rand(1, 1, 9, 8)
    for one, other in zip(begun.ridge.energy_and_gradient(x, 0.1), average.ridge.energy_and_gradient(x, 0.1), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)  # kernels are brought to their sphere: the same function


def test_a_recipe_that_does_not_fit_its_potential_is_refused(potential):
    recipe = guided_recipe(start=potential)
    with pytest.raises(ValueError, match="has channels 1, the recipe 3"):
        initial(replace(recipe, architecture=replace(recipe.architecture, channels=3)))
    with pytest.raises(ValueError, match="starts from a potential and has refreshes >= 1, got None"):
        replace(recipe, start=None)


def test_command_line_end_to_end(tmp_path, potential, capsys):
    """`stablenet train guided` writes weights and a card; `certify` and `evaluate` read them."""
    from torchvision.io import write_png

    (tmp_path / "images").mkdir()
    write_png((255 * Waves()[0]).to(torch.uint8), str(tmp_path / "images/waves.png"))
    small = "--width 4 --dilations 1 --patch-size 16 --batch-size 2 --precision 32-true --validation-count 1"
    schedule = "--schedule.steps 2 --schedule.validate-every 2 --schedule.checkpoint-every 1 --schedule.warmup-steps 1"
    given = f"--data {tmp_path / 'images'} --output {tmp_path / 'run'} --start {potential}"
    main(f"train guided {given} {small} {schedule}".split())
    weights = tmp_path / "run/guided.safetensors"
    card = json.loads(weights.with_suffix(".json").read_text())
    assert (card["steps"], card["kind"], card["recipe"]["refreshes"]) == (2, "guided", 2)
    assert card["start"]["name"] == "potential" and type(load(weights)) is Guided
    capsys.readouterr()
    main(["certify", str(weights)])
    assert "for every guide held fixed" in capsys.readouterr().out
    main(f"evaluate {weights} {tmp_path / 'images'} --noise-levels 0.1".split())
    printed = capsys.readouterr().out
    assert "PSNR" in printed and "each estimate is its own guide" in printed
