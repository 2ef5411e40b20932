"""A killed run that resumes ends with the same bits, and nothing half-written is ever taken for a checkpoint."""

from __future__ import annotations

import csv
import json
import multiprocessing
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import stablenet
from stablenet.cli import main
from stablenet.cli.train import TrainDenoiser
from stablenet.training.checkpoint import read
from stablenet.training.denoiser import train
from stablenet.training.loop import mixed
from stablenet.training.schedule import LearningSchedule
from stablenet.weights import load
from tests.stablenet.trainings import Waves, denoiser_recipe, run_denoiser


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    different = [key for key in ours if not torch.equal(ours[key], theirs[key])]
    assert not different


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> tuple[dict[str, Tensor], list[float]]:
    return run_denoiser(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("stop", [3, 6, 8])
def test_an_interrupted_run_ends_with_the_same_bits(uninterrupted, tmp_path, stop):
    whole, losses = uninterrupted
    _, first = run_denoiser(tmp_path, stop=stop)
    resumed, rest = run_denoiser(tmp_path)
    assert_same(resumed, whole)
    assert first == losses[:stop]
    assert rest == losses[stop - stop % 3 :]


def test_the_constraint_acts_in_this_recipe(uninterrupted):
    assert float(uninterrupted[0]["following/blocks.0/norm"]) > 1.4


def test_looking_more_often_changes_no_bit(uninterrupted, tmp_path):
    """Validation works on a certified copy: weights, average and optimizer do not depend on how often one looks."""
    for every in (1, 5):
        schedule = replace(denoiser_recipe().schedule, validate_every=every)
        assert_same(run_denoiser(tmp_path / str(every), schedule=schedule)[0], uninterrupted[0])


def test_a_second_run_of_the_same_seed_is_the_same_and_of_another_is_not(uninterrupted, tmp_path):
    assert_same(run_denoiser(tmp_path / "again")[0], uninterrupted[0])
    assert run_denoiser(tmp_path / "other", seed=1)[1] != uninterrupted[1]


def _hang_at_seven(folder: Path, reached) -> None:
    for report, _ in train(denoiser_recipe(), Waves(), Waves(), folder, fused=False):
        if report.step == 7:
            reached.set()
            signal.pause()


def test_a_killed_process_resumes_to_the_same_bits(uninterrupted, tmp_path):
    context = multiprocessing.get_context("fork")
    reached = context.Event()
    process = context.Process(target=_hang_at_seven, args=(tmp_path, reached))
    process.start()
    assert reached.wait(60)
    process.kill()
    process.join()
    assert read(tmp_path / "checkpoint.safetensors")[1]["step"] == "6"
    assert_same(run_denoiser(tmp_path)[0], uninterrupted[0])


def test_a_finished_run_is_looked_at_again_and_not_changed(uninterrupted, tmp_path):
    _, losses = run_denoiser(tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    assert run_denoiser(tmp_path)[1] == losses[-1:]
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_another_recipe_is_refused(tmp_path):
    run_denoiser(tmp_path, stop=3)
    with pytest.raises(ValueError, match=r"another recipe \(different: averagedness, seed\): use another output"):
        run_denoiser(tmp_path, seed=5, averagedness=0.5)


@pytest.mark.parametrize("size", [0, 7, 100, -1, -100])
def test_a_truncated_checkpoint_is_refused(tmp_path, size):
    run_denoiser(tmp_path, stop=3)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="checkpoint.safetensors is not a readable safetensors file"):
        run_denoiser(tmp_path)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    run_denoiser(tmp_path, stop=3)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def fail(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("stablenet.training.checkpoint.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        run_denoiser(tmp_path)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_the_loss_decreases_and_the_average_is_certified(tmp_path):
    schedule = LearningSchedule(60, learning_rate=0.05, warmup_steps=5, validate_every=60, checkpoint_every=60)
    losses, last = [], None
    for record, average in train(denoiser_recipe(schedule=schedule), Waves(), Waves(), tmp_path, fused=False):
        losses.append(record.loss)
        last = (record, average)
    assert sum(losses[-15:]) < 0.9 * sum(losses[:15])
    record, average = last
    certificate = stablenet.certify(average).certificate
    assert certificate.is_averaged
    assert certificate.averagedness <= 0.9
    assert set(record.validation) == {"psnr_5", "psnr_15", "psnr_25", "psnr_50"}


def test_the_log_holds_one_row_a_validation(tmp_path):
    run_denoiser(tmp_path)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [int(row["step"]) for row in rows] == [4, 8, 12]
    assert all(float(row["psnr_25"]) > 0 for row in rows)


def test_bf16_training_stays_certified(tmp_path):
    schedule = LearningSchedule(4, validate_every=4, checkpoint_every=4)
    runs = train(denoiser_recipe(precision="bf16-mixed", schedule=schedule), Waves(), Waves(), tmp_path, fused=False)
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
    before = b""
    with pytest.raises(ValueError, match="must lie in|the loss is nan"):
        for record, _ in train(denoiser_recipe(), data, Waves(), tmp_path, fused=False):
            data.broken = record.step >= 3
            before = before or (record.step == 3 and (tmp_path / "checkpoint.safetensors").read_bytes())
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_the_batch_depends_on_seed_step_and_rank():
    draws = {mixed(seed, step, rank) for seed in range(4) for step in range(50) for rank in range(3)}
    assert len(draws) == 600
    assert mixed(0, 1, 2) == mixed(0, 1, 2)
    assert all(0 <= draw < 2**63 for draw in draws)


def test_training_grows_from_weights_and_the_card_names_them(tmp_path):
    schedule = LearningSchedule(2, validate_every=2)
    first = TrainDenoiser(output=tmp_path / "a", name="small", validation_count=1, fused=False)
    first = replace(first, recipe=denoiser_recipe(schedule=schedule))
    weights = first.run()
    grown = denoiser_recipe(schedule=schedule, start=str(weights), blocks=2, kernel_size=11)
    large = replace(first, output=tmp_path / "b", name="large", recipe=grown).run()
    card, source = (json.loads(path.with_suffix(".json").read_text()) for path in (large, weights))
    assert card["start"] == {"name": "small", "sha256": source["sha256"]}
    assert card["architecture"]["blocks"] == 2
    assert load(large).architecture.kernel_size == 11
    with pytest.raises(ValueError, match="cannot grow"):
        next(
            train(
                replace(grown, architecture=replace(grown.architecture, features=9)),
                Waves(),
                Waves(),
                tmp_path / "c",
                fused=False,
            )
        )
    with pytest.raises(ValueError, match="no weights at"):
        next(train(replace(grown, start="nowhere"), Waves(), Waves(), tmp_path / "d", fused=False))


def test_images_smaller_than_the_patch_are_named(tmp_path):
    with pytest.raises(ValueError, match="image [0-2] is 24 x 20, smaller than patch_size=32"):
        run_denoiser(tmp_path, patch_size=32)


def test_command_line_end_to_end(tmp_path, capsys):
    """`stablenet train denoiser` on the bundled photographs writes weights and a card that `certify` accepts."""
    schedule = "--schedule.steps 2 --schedule.validate-every 2 --schedule.checkpoint-every 1 --schedule.warmup-steps 1"
    small = "--features 4 --blocks 1 --patch-size 16 --batch-size 2 --precision 32-true --no-fused --validation-count 1"
    main(f"train denoiser --output {tmp_path} {small} {schedule}".split())
    assert "Denoiser: lipschitz <= 1, averagedness <= 0." in capsys.readouterr().out
    weights = tmp_path / "denoiser.safetensors"
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["steps"] == 2
    assert card["data"]["folders"] == ["scikit-image's bundled photographs"]
    assert card["recipe"]["architecture"]["features"] == 4
    network = load(weights)
    assert stablenet.certify(network).averagedness == card["certificate"]["averagedness"]
