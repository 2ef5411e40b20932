"""However a run is stopped, the same command ends with the weights and the log of a run that never was, or says why not."""

from __future__ import annotations

import csv
import errno
import json
import multiprocessing
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from stablenet.cli import main
from stablenet.cli.train import TrainDenoiser
from stablenet.files import InUse
from stablenet.images.photographs import FolderImages
from stablenet.training import classifier, fingerprint, loop, session
from stablenet.training.checkpoint import read, read_header, write_atomically
from stablenet.training.denoiser import initial, train
from stablenet.weights import load, read_card
from tests.stablenet.trainings import Waves, bars, classifier_recipe, denoiser_recipe, run_denoiser

FULL = "No space left on device"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three photographs of waves."""
    place = tmp_path_factory.mktemp("data") / "waves"
    place.mkdir()
    for k, image in enumerate(Waves()[k] for k in range(3)):
        Image.fromarray((255 * image[0]).round().to(torch.uint8).numpy()).save(place / f"{k}.png")
    return place


def command(folder: Path, output: Path, **change: object) -> TrainDenoiser:
    return TrainDenoiser((folder,), output=output, fused=False, validation_count=1, recipe=denoiser_recipe(**change))


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "log.csv").open()))


def test_a_kill_between_the_last_checkpoint_and_the_weights_is_made_good(folder, tmp_path, monkeypatch):
    whole = command(folder, tmp_path / "whole").run()

    def killed(network, path, **card):
        if card["steps"] == 12:
            raise KeyboardInterrupt
        return saved(network, path, **card)

    saved = session.save
    monkeypatch.setattr(session, "save", killed)
    with pytest.raises(KeyboardInterrupt, match="the checkpoint of step 12 in .*cut is kept, the same command continues"):
        command(folder, tmp_path / "cut").run()
    monkeypatch.setattr(session, "save", saved)
    assert read_card(tmp_path / "cut" / "denoiser.safetensors")["steps"] == 8, "nothing stale to find"
    cut = command(folder, tmp_path / "cut").run()
    assert read_card(cut)["steps"] == 12
    assert cut.read_bytes() == whole.read_bytes()
    assert (tmp_path / "cut" / "log.csv").read_bytes() == (tmp_path / "whole" / "log.csv").read_bytes()


def test_deleted_weights_are_written_again(folder, tmp_path):
    path = command(folder, tmp_path).run()
    before = path.read_bytes()
    for file in (path, path.with_suffix(".json")):
        file.unlink()
    assert command(folder, tmp_path).run().read_bytes() == before
    assert load(path) is not None


@pytest.mark.parametrize("stop", [5, 8, 10, 11])
def test_log_rows_do_not_repeat_after_kills(tmp_path, stop):
    run_denoiser(tmp_path / "whole")
    run_denoiser(tmp_path / "cut", stop=stop)
    (tmp_path / "cut" / "log.csv").open("a").write("11,0.")  # half a row
    run_denoiser(tmp_path / "cut")
    assert (tmp_path / "cut" / "log.csv").read_bytes() == (tmp_path / "whole" / "log.csv").read_bytes()
    assert [row["step"] for row in rows(tmp_path / "cut")] == ["4", "8", "12"]


def test_a_second_run_in_a_folder_is_refused(tmp_path):
    first = train(denoiser_recipe(), Waves(), Waves(), tmp_path, fused=False)
    next(first)
    with pytest.raises(InUse, match="is in use by process"):
        run_denoiser(tmp_path)
    first.close()
    run_denoiser(tmp_path)


def _hold(folder: Path, ready) -> None:
    steps = train(denoiser_recipe(), Waves(), Waves(), folder, fused=False)
    next(steps)
    ready.set()
    signal.pause()


def test_after_a_kill_the_lock_is_taken_over_and_temporaries_are_gone(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    left = tmp_path / f".checkpoint.{process.pid}.tmp.safetensors"
    left.write_bytes(b"half")
    with pytest.raises(InUse, match=f"process {process.pid}"):
        run_denoiser(tmp_path)
    assert left.exists(), "it may still be written"
    process.kill()
    process.join()
    run_denoiser(tmp_path)
    assert not left.exists()


def test_other_images_are_refused_and_both_are_named(folder, tmp_path):
    command(folder, tmp_path / "run").run()
    other = tmp_path / "others"
    other.mkdir()
    for path in folder.iterdir():
        picture = Image.open(path)
        picture.putpixel((3, 4), 255 - picture.getpixel((3, 4)))
        picture.save(other / path.name)
    with pytest.raises(ValueError, match=rf"trained on {folder} \(3 items, .*\), not on {other} \(3 items, .*\)"):
        command(other, tmp_path / "run").run()
    moved = tmp_path / "moved"
    folder.rename(moved)
    try:
        command(moved, tmp_path / "run").run()
    finally:
        moved.rename(folder)


def test_the_checkpoint_of_another_kind_is_refused(tmp_path):
    run_denoiser(tmp_path, stop=3)
    with pytest.raises(ValueError, match="is of a training of another kind: use another output"):
        next(classifier.train(classifier_recipe(), bars(), bars(), tmp_path))


def test_fingerprints_tell_content_and_count_and_not_the_place(folder):
    images = FolderImages([folder])
    assert fingerprint.take(images, "a").matches(fingerprint.take(FolderImages([folder]), "b"))
    assert not fingerprint.take(Waves(), "").matches(fingerprint.take(Waves(period=4), ""))
    assert not fingerprint.take(Waves(), "").matches(fingerprint.take(Waves(2), ""))

    class Random(Waves):
        def __getitem__(self, index):
            return torch.rand(1, 20, 20)

    assert fingerprint.take(Random(), "").matches(fingerprint.take(Random(), ""))


def test_the_learning_rate_may_be_lowered_on_resuming_and_the_card_says_so(folder, tmp_path):
    steps = command(folder, tmp_path).session().steps
    while next(steps)[0].step < 6:
        pass
    steps.close()
    command(folder, tmp_path, schedule_learning_rate=0.1).run()
    card = read_card(tmp_path / "denoiser.safetensors")
    assert card["learning_rate_from_step"] == {"0": 0.5, "6": 0.1}
    assert card["recipe"]["schedule"]["learning_rate"] == 0.1
    assert float(rows(tmp_path)[-1]["learning_rate"]) < 0.1
    assert read_header(tmp_path / "checkpoint.safetensors").learning_rates == ((0, 0.5), (6, 0.1))


def test_a_checkpoint_of_the_first_version_is_gone_on_from(tmp_path):
    """Its recipe was flat, it knew nothing of the images, and the norms that are followed stood in the blocks."""
    tensors, _ = run_denoiser(tmp_path, stop=3)
    entries = json.loads(denoiser_recipe().to_json())
    architecture = entries.pop("architecture")
    flat = entries | {
        name: value for name, value in architecture.items() if name not in ("tableau", "policy", "extra_channels")
    }
    del flat["schedule"]["checkpoint_minutes"]
    old = {key: value for key, value in tensors.items() if not key.startswith("following/")}
    for group in ("model", "average"):
        old |= {f"{group}/blocks.0.{name}": torch.zeros(2) for name in ("power_vector", "tracked_norm")}
    write_atomically(tmp_path / "checkpoint.safetensors", old, {"step": "3", "recipe": json.dumps(flat)})
    found, losses = run_denoiser(tmp_path)
    assert len(losses) == 9 and found.keys() == tensors.keys()
    assert read_header(tmp_path / "checkpoint.safetensors").data is not None
    with pytest.raises(ValueError, match=r"another recipe \(different: seed\)"):
        run_denoiser(tmp_path, seed=2)


def test_the_pace_may_change_on_resuming_and_the_weights_do_not(tmp_path):
    whole, _ = run_denoiser(tmp_path / "whole")
    run_denoiser(tmp_path / "cut", stop=6)
    cut, _ = run_denoiser(tmp_path / "cut", schedule_validate_every=5, schedule_checkpoint_every=1)
    assert not [key for key in whole if not torch.equal(whole[key], cut[key])]


def test_a_loss_that_is_no_number_says_what_helps(tmp_path, monkeypatch):
    run_denoiser(tmp_path, stop=3)
    monkeypatch.setattr("stablenet.training.recipe.DenoiserRecipe.loss", lambda *a: torch.tensor(torch.nan, requires_grad=True))
    advice = (
        r"the loss is nan at step 3: resume with a lower --schedule.learning-rate than 0.5; the checkpoint of step 3 is kept"
    )
    with pytest.raises(ValueError, match=advice):
        run_denoiser(tmp_path)
    monkeypatch.undo()
    run_denoiser(tmp_path, schedule_learning_rate=0.05)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, FULL), SafetensorError(FULL)])
def test_a_full_disk_is_one_clear_error_and_the_old_checkpoint_is_kept(folder, tmp_path, monkeypatch, capsys, error):
    steps = command(folder, tmp_path).session().steps
    while next(steps)[0].step < 6:
        pass
    steps.close()
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr("stablenet.training.checkpoint.save_file", full)
    small = "--features 8 --blocks 1 --patch-size 16 --batch-size 2 --precision 32-true --no-fused --validation-count 1"
    pace = "steps 12 learning-rate 0.5 kernel-rate 1 warmup-steps 1 validate-every 4 checkpoint-every 3 average-decay 0.9"
    words = [word if word[0].isdigit() else f"--schedule.{word}" for word in pace.split()]
    with pytest.raises(SystemExit) as stop:
        main(["train", "denoiser", "--data", str(folder), "--output", str(tmp_path), *small.split(), *words])
    assert stop.value.code == 2
    found = capsys.readouterr().err.splitlines()
    assert len(found) == 1 and found[0].startswith("error: no checkpoint of step 9 could be written (")
    assert FULL in found[0] and found[0].endswith("the checkpoint of step 6 is kept")
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_checkpoint_is_written_by_the_clock_too(tmp_path, monkeypatch):
    now = iter(range(0, 10**6, 40))
    monkeypatch.setattr(loop, "monotonic", lambda: next(now))
    found = []
    pace = {"schedule_checkpoint_every": 1000, "schedule_checkpoint_minutes": 1.0, "schedule_validate_every": 1000}
    for report, _ in train(denoiser_recipe(**pace), Waves(), Waves(), tmp_path, fused=False):
        path = tmp_path / "checkpoint.safetensors"
        found.append(int(read(path)[1]["step"]) if path.exists() else 0)
        assert report.step - found[-1] <= 2
    assert found[-1] == 12 and len(set(found)) > 3


def test_an_interrupted_run_says_what_is_kept(folder, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("stablenet.training.recipe.DenoiserRecipe.loss", stop)
    with pytest.raises(SystemExit) as found:
        main(["train", "denoiser", "--data", str(folder), "--output", str(tmp_path), "--patch-size", "16", "--no-fused"])
    assert found.value.code == 130
    assert "interrupted: no checkpoint is in" in capsys.readouterr().err


def test_channels_that_no_photograph_has_are_one_clear_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "denoiser", "--channels", "2", "--output", str(tmp_path)])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert "channels must be 1 (gray) or 3 (color)" in captured.err
    assert "Traceback" not in captured.err + captured.out


def test_training_leaves_the_global_generator_alone(tmp_path):
    before = torch.get_rng_state()
    first, again = (initial(denoiser_recipe()).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(initial(denoiser_recipe(seed=1)).blocks[0].linear.weight, first["blocks.0.linear.weight"])
    classifier.initial(classifier_recipe(), bars())
    run_denoiser(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_card_tells_the_precision_that_auto_stood_for(folder, tmp_path, capsys):
    recipe = denoiser_recipe(precision="auto")
    replace(command(folder, tmp_path), recipe=recipe).run()
    card = json.loads((tmp_path / "denoiser.json").read_text())
    assert card["recipe"]["precision"] == "auto"
    assert card["precision"] in ("32-true", "bf16-mixed")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("precision ")]
    assert len(said) == 1 and said[0].startswith(f"precision {card['precision']} (")
