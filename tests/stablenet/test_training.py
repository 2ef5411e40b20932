"""A killed run that resumes ends with the same bits, and nothing half-written is ever taken for a checkpoint."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

import stablenet
from stablenet.training.checkpoint import read
from stablenet.training.denoiser import DenoiserRecipe, train
from stablenet.training.loop import Schedule, _mixed
from stablenet.weights import load

ROOT = Path(__file__).parents[2]
STEPS = 12


class Waves(Dataset):
    """Smooth images from a formula: the same in every process."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Tensor:
        rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(20.0), indexing="ij")
        return (0.5 + 0.4 * torch.sin(rows / (2 + index)) * torch.cos(columns / 3))[None]


def recipe(**change: object) -> DenoiserRecipe:
    """Learning rates so large that the norm constraint acts: only then does resuming have something to get wrong."""
    schedule = Schedule(
        STEPS, learning_rate=0.5, kernel_rate=1.0, warmup_steps=1, validate_every=4, checkpoint_every=3, average_decay=0.9
    )
    values = {"features": 8, "blocks": 1, "patch_size": 16, "batch_size": 2, "precision": "32-true", "schedule": schedule}
    return DenoiserRecipe(**{**values, **change})


def run(folder: Path, *, stop: int | None = None, **change: object) -> tuple[dict[str, Tensor], list[float]]:
    losses = []
    for record, _ in train(recipe(**change), Waves(), Waves(), folder, fused=False):
        losses.append(record.loss)
        if record.step == stop:
            break
    return read(folder / "checkpoint.safetensors")[0], losses


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    different = [key for key in ours if not torch.equal(ours[key], theirs[key])]
    assert not different


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> tuple[dict[str, Tensor], list[float]]:
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("stop", [3, 6, 8])
def test_an_interrupted_run_ends_with_the_same_bits(uninterrupted, tmp_path, stop):
    whole, losses = uninterrupted
    _, first = run(tmp_path, stop=stop)
    resumed, rest = run(tmp_path)
    assert_same(resumed, whole)
    assert first == losses[:stop]
    assert rest == losses[stop - stop % 3 :]


def test_the_constraint_acts_in_this_recipe(uninterrupted):
    assert float(uninterrupted[0]["following/blocks.0/norm"]) > 1.4


def test_looking_more_often_changes_no_bit(uninterrupted, tmp_path):
    """Validation works on a certified copy: weights, average and optimizer do not depend on how often one looks."""
    for every in (1, 5):
        schedule = replace(recipe().schedule, validate_every=every)
        assert_same(run(tmp_path / str(every), schedule=schedule)[0], uninterrupted[0])


def test_a_second_run_of_the_same_seed_is_the_same_and_of_another_is_not(uninterrupted, tmp_path):
    assert_same(run(tmp_path / "again")[0], uninterrupted[0])
    assert run(tmp_path / "other", seed=1)[1] != uninterrupted[1]


KILLED = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.stablenet.test_training import Waves, recipe
from stablenet.training.denoiser import train
for record, _ in train(recipe(), Waves(), Waves(), Path(sys.argv[1]), fused=False):
    print(record.step, flush=True)
    if record.step == 7:
        time.sleep(60)
"""


def test_a_killed_process_resumes_to_the_same_bits(uninterrupted, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    try:
        assert any(line.strip() == "7" for line in process.stdout)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert read(tmp_path / "checkpoint.safetensors")[1]["step"] == "6"
    assert_same(run(tmp_path)[0], uninterrupted[0])


def test_a_finished_run_does_nothing_more(uninterrupted, tmp_path):
    run(tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    assert run(tmp_path)[1] == []
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_another_recipe_is_refused(tmp_path):
    run(tmp_path, stop=3)
    with pytest.raises(ValueError, match=r"another recipe \(different: averagedness, seed\): use another output"):
        run(tmp_path, seed=5, averagedness=0.5)


@pytest.mark.parametrize("size", [0, 7, 100, -1, -100])
def test_a_truncated_checkpoint_is_refused(tmp_path, size):
    run(tmp_path, stop=3)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="checkpoint.safetensors is not a readable safetensors file"):
        run(tmp_path)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    run(tmp_path, stop=3)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def fail(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("stablenet.training.checkpoint.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        run(tmp_path)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_the_loss_decreases_and_the_average_is_certified(tmp_path):
    schedule = Schedule(60, learning_rate=0.05, warmup_steps=5, validate_every=60, checkpoint_every=60)
    losses, last = [], None
    for record, average in train(recipe(schedule=schedule), Waves(), Waves(), tmp_path, fused=False):
        losses.append(record.loss)
        last = (record, average)
    assert sum(losses[-15:]) < 0.9 * sum(losses[:15])
    record, average = last
    certificate = stablenet.certify(average).certificate
    assert certificate.is_averaged
    assert certificate.averagedness <= 0.9
    assert set(record.validation) == {"psnr_5", "psnr_15", "psnr_25", "psnr_50"}


def test_the_log_holds_one_row_a_validation(tmp_path):
    run(tmp_path)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [int(row["step"]) for row in rows] == [4, 8, 12]
    assert all(float(row["psnr_25"]) > 0 for row in rows)


def test_bf16_training_stays_certified(tmp_path):
    schedule = Schedule(4, validate_every=4, checkpoint_every=4)
    runs = train(recipe(precision="bf16-mixed", schedule=schedule), Waves(), Waves(), tmp_path, fused=False)
    records, averages = zip(*runs, strict=True)
    assert all(record.loss > 0 for record in records)
    average = averages[-1]
    assert all(p.dtype == torch.float32 for p in average.parameters())
    assert stablenet.certify(average).certificate.is_averaged


def test_a_diverging_run_stops_and_keeps_its_checkpoint(tmp_path):
    class Broken(Waves):
        def __getitem__(self, index: int) -> Tensor:
            return super().__getitem__(index) * (float("nan") if self.broken else 1)

    data = Broken()
    data.broken = False
    for record, _ in train(recipe(), data, Waves(), tmp_path, fused=False):
        data.broken = record.step >= 3
        if record.step == 3:
            break
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ValueError, match="must lie in|the loss is nan"):
        for _ in train(recipe(), data, Waves(), tmp_path, fused=False):
            pass
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_the_batch_depends_on_seed_step_and_rank():
    draws = {_mixed(seed, step, rank) for seed in range(4) for step in range(50) for rank in range(3)}
    assert len(draws) == 600
    assert _mixed(0, 1, 2) == _mixed(0, 1, 2)
    assert all(0 <= draw < 2**63 for draw in draws)


def test_the_recipe_survives_json():
    ours = recipe(seed=3, noise_level=0.1, averagedness=0.5)
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
    ],
)
def test_bad_recipes(change, text):
    with pytest.raises(ValueError, match=text):
        recipe(**change)


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
        replace(Schedule(5), **change)


def test_the_loss_does_not_see_the_margin():
    ours, clean, level = recipe(margin=3), torch.rand(2, 1, 16, 16), torch.tensor([0.02, 0.1])
    restored = clean + 0.1
    inside = float(ours.loss(restored, clean, level))
    assert inside == pytest.approx(float((0.01 / (level + 2 / 255) ** ours.weight_power).mean()), rel=1e-5)
    changed = restored.clone()
    changed[..., :3] = changed[..., -3:] = changed[..., :3, :] = changed[..., -3:, :] = 7.0
    assert float(ours.loss(changed, clean, level)) == inside
    changed[..., 3, 3] = 7.0
    assert float(ours.loss(changed, clean, level)) > inside


def test_stratified_noise_levels_take_one_from_each_part_of_the_range():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([recipe(stratified=True).noise_levels(5, generator) for _ in range(400)]) * 255
    parts = torch.arange(6) * 10.0
    assert (drawn >= parts[:-1]).all() and (drawn <= parts[1:]).all()
    assert (drawn.amin(0) < parts[:-1] + 0.5).all() and (drawn.amax(0) > parts[1:] - 0.5).all()
    assert (recipe(stratified=True, noise_level=0.1).noise_levels(5, generator) == 0.1).all()


def test_training_grows_from_weights_and_the_card_names_them(tmp_path):
    from stablenet.training.session import TrainDenoiser
    from stablenet.training.session import run as run_session

    schedule = Schedule(2, validate_every=2)
    first = TrainDenoiser(output=tmp_path / "a", name="small", validation_count=1, fused=False)
    first = replace(first, recipe=recipe(schedule=schedule))
    weights = run_session(first)
    grown = recipe(schedule=schedule, start=str(weights), blocks=2, kernel_size=11)
    large = run_session(replace(first, output=tmp_path / "b", name="large", recipe=grown))
    card, source = (json.loads(path.with_suffix(".json").read_text()) for path in (large, weights))
    assert card["start"] == {"name": "small", "sha256": source["sha256"]}
    assert card["architecture"]["blocks"] == 2
    assert load(large).architecture.kernel_size == 11
    with pytest.raises(ValueError, match="cannot grow"):
        next(train(replace(grown, features=9), Waves(), Waves(), tmp_path / "c", fused=False))
    with pytest.raises(ValueError, match="no weights at"):
        next(train(replace(grown, start="nowhere"), Waves(), Waves(), tmp_path / "d", fused=False))


def test_images_smaller_than_the_patch_are_named(tmp_path):
    with pytest.raises(ValueError, match="image [0-2] is 24 x 20, smaller than patch_size=32"):
        run(tmp_path, patch_size=32)


def test_command_line_end_to_end(tmp_path):
    """`stablenet train denoiser` on the bundled photographs writes weights and a card that `certify` accepts."""
    schedule = "--schedule.steps 2 --schedule.validate-every 2 --schedule.checkpoint-every 1 --schedule.warmup-steps 1"
    small = "--features 4 --blocks 1 --patch-size 16 --batch-size 2 --precision 32-true --no-fused --validation-count 1"
    begin = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-c", "from stablenet.cli import main; main()", "train", "denoiser"]
        + f"--output {tmp_path} {small} {schedule}".split(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert found.returncode == 0, found.stderr
    assert "Denoiser: lipschitz <= 1, averagedness <= 0." in found.stdout
    weights = tmp_path / "denoiser.safetensors"
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["steps"] == 2
    assert card["data"]["folders"] == ["scikit-image's bundled photographs"]
    assert card["recipe"]["features"] == 4
    network = load(weights)
    assert stablenet.certify(network).averagedness == card["certificate"]["averagedness"]
    assert time.monotonic() - begin < 120
