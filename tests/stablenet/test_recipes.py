"""Recipes are made of parts, survive JSON in the present form and the first, and settle their precision by the machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stablenet.bundled import available, data_path
from stablenet.certificate import certify
from stablenet.cli.train import TrainClassifier, TrainDenoiser, parse
from stablenet.images.photographs import some_flat
from stablenet.networks.architectures import ClassifierShape, DenoiserArchitecture
from stablenet.tableaus import HEUN
from stablenet.training import precision
from stablenet.training.denoiser import initial
from stablenet.training.losses import absolute, charbonnier
from stablenet.training.recipe import ClassifierRecipe, DenoiserRecipe, GuidedRecipe, RidgeRecipe, conflicts, recipe_of_card
from stablenet.training.schedule import LearningSchedule
from tests.stablenet.trainings import STEPS, classifier_recipe, denoiser_recipe, ridge_recipe


def flags(kind: type, text: str):
    return parse(kind, text.split()).recipe


def test_the_recipe_survives_json():
    ours = denoiser_recipe(seed=3, noise_level=0.1, averagedness=0.5)
    assert DenoiserRecipe.from_json(ours.to_json()) == ours
    assert json.loads(ours.to_json())["schedule"]["steps"] == STEPS


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"patch_size": 4}, "patch_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"margin": 8}, "margin"),
        ({"margin": -1}, "margin"),
        ({"noise_level": 0.9}, "noise_level"),
        ({"precision": "16"}, "precision"),
        ({"averagedness": 1.0}, "averagedness"),
        ({"features": 0}, "features"),
        ({"error": "cube"}, "square, absolute, charbonnier"),
        ({"flat_share": 1.0}, "flat_share"),
        ({"anchor": 0.0}, "anchor"),
    ],
)
def test_bad_recipes(change, text):
    with pytest.raises(ValueError, match=text):
        denoiser_recipe(**change)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"steps": 0}, "steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"average_decay": 1.0}, "average_decay"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"gradient_clip": -1.0}, "gradient_clip"),
    ],
)
def test_bad_schedules(change, text):
    with pytest.raises(ValueError, match=text):
        replace(LearningSchedule(5), **change)


def test_the_loss_does_not_see_the_margin():
    ours, clean, level = denoiser_recipe(margin=3), torch.rand(2, 1, 16, 16), torch.tensor([0.02, 0.1])
    restored = clean + 0.1
    inside = float(ours.loss(restored, clean, level))
    assert inside == pytest.approx(float((0.01 / (level + 2 / 255) ** ours.weight_power).mean()), rel=1e-5)
    changed = restored.clone()
    changed[..., :3] = changed[..., -3:] = changed[..., :3, :] = changed[..., -3:, :] = 7.0
    assert float(ours.loss(changed, clean, level)) == inside
    changed[..., 3, 3] = 7.0
    assert float(ours.loss(changed, clean, level)) > inside


@pytest.mark.parametrize(("name", "count"), [("square", 0.01), ("absolute", 0.1), ("charbonnier", 0.1)])
def test_what_an_error_counts(name, count):
    ours, clean, level = denoiser_recipe(error=name, weight_power=0.0), torch.rand(2, 1, 16, 16), torch.tensor([0.02, 0.1])
    assert float(ours.loss(clean, clean, level)) == 0.0
    assert float(ours.loss(clean + 0.1, clean, level)) == pytest.approx(count, abs=1 / 255)
    assert float(ours.loss(clean - 0.1, clean, level)) == pytest.approx(float(ours.loss(clean + 0.1, clean, level)), rel=1e-5)


def test_charbonnier_lies_below_the_absolute_error_and_has_no_corner():
    error = torch.linspace(-0.2, 0.2, 401, dtype=torch.float64, requires_grad=True)
    value = charbonnier(error)
    (slope,) = torch.autograd.grad(value.sum(), error)
    assert (value <= absolute(error)).all() and (value >= absolute(error) - 1 / 255).all()
    assert float(slope[200].abs()) < 1e-9 and float(slope.abs().max()) < 1
    torch.testing.assert_close(slope[[0, -1]].abs(), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-3)


def test_flat_patches_are_one_color_and_so_many():
    generator, patches = torch.Generator().manual_seed(0), torch.rand(4000, 3, 8, 8)
    mixed = some_flat(patches, 0.2, generator)
    spread = mixed.flatten(2).amax(2) - mixed.flatten(2).amin(2)
    flat = (spread == 0).all(1)
    assert float(flat.float().mean()) == pytest.approx(0.2, abs=0.02)
    assert torch.equal(mixed[~flat], patches[~flat])
    colors = mixed[flat][..., 0, 0]
    assert float(colors.min()) < 0.02 and float(colors.max()) > 0.98 and float(torch.corrcoef(colors.T)[0, 1].abs()) < 0.15


def test_a_start_without_idle_blocks_is_grown_and_its_anchors_lowered():
    recipe = denoiser_recipe(start="denoiser-gray-small", features=48, kernel_size=7, blocks=4, averagedness=0.9, anchor=0.05)
    network = initial(recipe)
    assert len(network.blocks) == 4 and all(p.requires_grad for p in network.parameters())
    assert float(network.anchor_weights()[:-1].detach().max()) <= 0.05 + 1e-6
    assert certify(network).certificate.averagedness <= 0.9
    assert float(initial(denoiser_recipe(blocks=3, anchor=0.05)).anchor_weights()[0].detach().max()) <= 0.05 + 1e-6


def test_stratified_noise_levels_take_one_from_each_part_of_the_range():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([denoiser_recipe(stratified=True).noise_levels(5, generator) for _ in range(400)]) * 255
    parts = torch.arange(6) * 10.0
    assert (drawn >= parts[:-1]).all() and (drawn <= parts[1:]).all()
    assert (drawn.amin(0) < parts[:-1] + 0.5).all() and (drawn.amax(0) > parts[1:] - 0.5).all()
    assert (denoiser_recipe(stratified=True, noise_level=0.1).noise_levels(5, generator) == 0.1).all()


@pytest.mark.parametrize(
    "recipe", [denoiser_recipe(tableau=HEUN), ridge_recipe(), classifier_recipe()], ids=["denoiser", "ridge", "classifier"]
)
def test_every_recipe_survives_json(recipe):
    assert type(recipe).from_json(recipe.to_json()) == recipe


def test_the_flags_of_the_readme_reach_the_parts():
    recipe = flags(TrainDenoiser, "--start denoiser-gray-small --blocks 20 --kernel-size 11 --schedule.learning-rate 3e-3")
    assert recipe.architecture == DenoiserArchitecture(blocks=20, kernel_size=11)
    assert (recipe.start, recipe.schedule.learning_rate) == ("denoiser-gray-small", 3e-3)
    recipe = flags(TrainClassifier, "--stages 12 2 48 6 --dense-features 116 --crop 1")
    assert recipe.architecture == ClassifierShape(stages=((12, 2), (48, 6)), dense_features=116)
    assert recipe.sized((3, 32, 32), 10).height == 32


def test_tableaus_and_policies_are_flags_by_name(capsys):
    recipe = flags(TrainDenoiser, "--tableau heun --policy substeps")
    assert recipe.architecture.tableau == HEUN
    assert type(recipe.architecture.policy).__name__ == "Substeps"
    with pytest.raises(SystemExit):
        flags(TrainDenoiser, "--tableau leapfrog")
    assert "leapfrog" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in available() if not name.startswith("nok-")])  # an example, no recipe
def test_recipes_of_shipped_cards_can_be_repeated(name):
    path = data_path(f"weights/{name}.json")
    card = json.loads(path.read_text())
    kinds = {"classifier": ClassifierRecipe, "ridge": RidgeRecipe, "guided": GuidedRecipe, "denoiser": DenoiserRecipe}
    kind = kinds[card["kind"]]
    recipe, entries = recipe_of_card(kind, path), card["recipe"]
    for key, value in recipe_entries(entries).items():
        found = getattr(recipe.architecture, key) if hasattr(recipe.architecture, key) else getattr(recipe, key)
        assert json.loads(json.dumps(found)) == value, key
    for key, value in entries["schedule"].items():
        assert getattr(recipe.schedule, key) == value
    assert recipe.to_json() == kind.from_json(recipe.to_json()).to_json()


def test_flags_beside_a_card_change_its_recipe():
    path = data_path("weights/denoiser-gray.json")
    card = recipe_of_card(DenoiserRecipe, path)
    assert flags(TrainDenoiser, f"--card {path}") == card
    changed = flags(TrainDenoiser, f"--card {path} --schedule.learning-rate 1e-3 --blocks 20")
    schedule = replace(card.schedule, learning_rate=1e-3)
    assert changed == replace(card, architecture=replace(card.architecture, blocks=20), schedule=schedule)


def recipe_entries(recipe: dict) -> dict:
    """Of either form: all but the schedule, by name."""
    flat = {**recipe.get("architecture", {}), **recipe}
    return {key: value for key, value in flat.items() if key not in ("architecture", "schedule", "tableau", "policy")}


def test_an_entry_that_no_recipe_has_is_refused(tmp_path):
    path = tmp_path / "card.json"
    for recipe in ({"blocks": 2, "wings": 3, "schedule": {"steps": 1}}, {"schedule": {}}, {}, 3):
        path.write_text(json.dumps({"recipe": recipe}))
        with pytest.raises(ValueError, match="holds no recipe that can be repeated"):
            recipe_of_card(DenoiserRecipe, path)


def test_conflicts_are_named_by_their_flags():
    ours = denoiser_recipe()
    assert conflicts(ours, denoiser_recipe(schedule_learning_rate=0.1, schedule_validate_every=7)) == []
    assert conflicts(ours, denoiser_recipe(blocks=2, schedule_steps=3, batch_size=4)) == [
        "batch_size",
        "blocks",
        "schedule.steps",
    ]


@pytest.mark.parametrize(
    ("flags", "name", "reason"),
    [
        ({"avx512_bf16", "avx2"}, "bf16-mixed", "avx512_bf16"),
        ({"amx_bf16"}, "bf16-mixed", "amx_bf16"),
        ({"avx2", "avx512f"}, "32-true", "neither avx512_bf16 nor amx_bf16"),
        (set(), "32-true", "neither"),
    ],
)
def test_auto_is_bf16_only_where_the_processor_multiplies_it(monkeypatch, flags, name, reason):
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(precision, "onednn_has_bf16", lambda: True)
    found = precision.settle("auto", torch.device("cpu"))
    assert found.name == name and reason in found.reason and found.half == (name == "bf16-mixed")
    asked = precision.settle("bf16-mixed", torch.device("cpu"))
    assert asked.half and ("slow here" in asked.reason) == (name == "32-true")
    assert precision.settle("32-true", torch.device("cpu")).name == "32-true"


@pytest.mark.parametrize(("capability", "name"), [((7, 5), "32-true"), ((8, 0), "bf16-mixed"), ((9, 0), "bf16-mixed")])
def test_auto_is_bf16_on_gpus_from_capability_8_on(monkeypatch, capability, name):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision.settle("auto", torch.device("cuda")).name == name
    assert precision.settle("auto", torch.device("meta")).name == "32-true"


def test_flags_of_the_processor_are_read_from_what_linux_lists(tmp_path: Path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags\t\t: fpu avx2 amx_bf16\nflags : other\n")
    assert precision.cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx2", "amx_bf16"}
    assert precision.cpu_flags(tmp_path / "absent") == frozenset()
