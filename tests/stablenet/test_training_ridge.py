"""A ridge potential trains by the one loop: resumed to the same bits, certified at each validation, convex if so asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import stablenet
from stablenet import potential
from stablenet.cli import main
from stablenet.training.checkpoint import read
from stablenet.training.denoiser import initial, train
from stablenet.training.loop import groups_of
from stablenet.training.schedule import LearningSchedule
from stablenet.weights import load
from tests.stablenet.trainings import Waves, ridge_recipe


def run(folder: Path, *, stop: int | None = None, **change: object) -> tuple[dict[str, Tensor], list[float]]:
    """Train to the end or to a step; what the checkpoint then holds, and the losses of the steps done."""
    losses = []
    for report, _ in train(ridge_recipe(**change), Waves(), Waves(1), folder):
        losses.append(report.loss)
        if report.step == stop:
            break
    return read(folder / "checkpoint.safetensors")[0], losses


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path):
    whole, losses = run(tmp_path / "whole")
    assert run(tmp_path / "part", stop=8)[1] == losses[:8]
    resumed, rest = run(tmp_path / "part")
    assert rest == losses[6:] and whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.parametrize("weak_convexity", [0.0, 0.8])
def test_the_loss_decreases_and_the_average_is_certified(tmp_path, weak_convexity):
    schedule = LearningSchedule(50, learning_rate=0.05, warmup_steps=5, validate_every=10, average_decay=0.8)
    losses = []
    for report, average in train(
        ridge_recipe(schedule=schedule, weak_convexity=weak_convexity, noise_level=0.15), Waves(), Waves(1), tmp_path
    ):
        losses.append(report.loss)
        if report.validation:
            fact = potential.certify(average)
            assert fact.weak_convexity <= weak_convexity
            assert stablenet.certify(average).certificate.averagedness == (0.5 if weak_convexity == 0 else None)
    assert sum(losses[-15:]) < 0.9 * sum(losses[:15])
    assert set(report.validation) == {"psnr_38"}


def test_kernels_move_at_their_own_rate_and_the_slopes_stay_where_gradients_reach():
    network = initial(ridge_recipe())
    slow, others = groups_of(network, 0.15)
    assert slow["share"] == 0.15 and [p is network.kernels for p in slow["params"]] == [True]
    assert len(others["params"]) == 3
    network.requires_grad_(False).slopes.mul_(9.0)
    before = network.profile_slopes()
    stablenet.enforce(network)
    assert torch.allclose(network.profile_slopes(), before, atol=1e-5)
    steepest = network.log_curvature.exp()
    assert float(network.slopes.max()) <= 1 and float((network.slopes * steepest).min()) >= -0.9 - 1e-6


def test_a_convex_potential_starts_from_a_weakly_convex_one(tmp_path):
    schedule = LearningSchedule(2, validate_every=2)
    weakly = initial(ridge_recipe())
    stablenet.save(weakly, tmp_path / "weakly")
    recipe = ridge_recipe(
        schedule=schedule, start=str(tmp_path / "weakly.safetensors"), weak_convexity=0.0, kernel_size=7, segments=7
    )
    begun = initial(recipe)
    assert potential.certify(weakly).weak_convexity > 0 and potential.certify(begun).is_convex
    *_, (_, average) = train(recipe, Waves(), Waves(1), tmp_path / "run")
    assert stablenet.certify(average).averagedness == 0.5
    for change in ({"filters": 3}, {"kernel_size": 3}):
        changed = replace(recipe, architecture=replace(recipe.architecture, **change))
        with pytest.raises(ValueError, match=f"cannot grow .*{next(iter(change))} would not be kept"):
            initial(changed)


def test_command_line_end_to_end(tmp_path, capsys):
    """`stablenet train ridge` writes weights and a card; `certify`, `evaluate` and the refusal of `export`."""
    from torchvision.io import write_png

    (tmp_path / "images").mkdir()
    image = (255 * Waves()[0]).to(torch.uint8)
    write_png(image, str(tmp_path / "images/waves.png"))
    small = "--filters 2 --kernel-size 5 --patch-size 16 --batch-size 2 --precision 32-true --validation-count 1"
    schedule = "--schedule.steps 2 --schedule.validate-every 2 --schedule.checkpoint-every 1 --schedule.warmup-steps 1"
    main(f"train ridge --data {tmp_path / 'images'} --output {tmp_path} {small} {schedule}".split())
    weights = tmp_path / "ridge.safetensors"
    card = json.loads(weights.with_suffix(".json").read_text())
    assert (card["steps"], card["kind"], card["recipe"]["error"]) == (2, "ridge", "absolute")
    fact = potential.certify(load(weights))
    capsys.readouterr()
    main(["certify", str(weights)])
    assert str(fact) in capsys.readouterr().out
    main(f"evaluate {weights} {tmp_path / 'images'} --noise-levels 0.1".split())
    assert "PSNR" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["export", str(weights), str(tmp_path / "ridge.onnx")])
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Ridge" in error and not (tmp_path / "ridge.onnx").exists()
