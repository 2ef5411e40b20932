"""Training a classifier: losses push what certifies, runs resume to the same bits, two processes equal one, files come out."""

from __future__ import annotations

import csv
import math
import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor

from stablenet.cli import main
from stablenet.images.labeled import LabeledImages
from stablenet.training.checkpoint import read
from stablenet.training.classifier import evaluate, random_batch, train
from stablenet.training.losses import LOSSES
from stablenet.training.recipe import SCHEDULE
from stablenet.weights import WeightsRefused, load, read_card
from tests.stablenet.trainings import bars, classifier_recipe


def run_classifier(folder: Path, *, stop: int | None = None, **change: object) -> dict[str, Tensor]:
    for record, _ in train(classifier_recipe(**change), bars(), bars(), folder):
        if record.step == stop:
            break
    return read(folder / "checkpoint.safetensors")[0]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_teaches_to_certify(loss, tmp_path):
    schedule = replace(SCHEDULE, steps=60, learning_rate=0.02, warmup_steps=5, average_decay=0.9, validate_every=60)
    *_, (record, network) = train(classifier_recipe(loss=loss, schedule=schedule, batch_size=32), bars(), bars(), tmp_path)
    table = evaluate(network, bars(), (0.0, 0.1, 0.3))
    assert table[0.0] >= 0.9
    assert table[0.1] >= 0.7
    assert table[0.0] >= table[0.1] >= table[0.3]
    assert record.validation["certified_0"] == table[0.0]


@pytest.mark.parametrize("stop", [2, 3])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, stop):
    whole = run_classifier(tmp_path / "whole")
    run_classifier(tmp_path / "cut", stop=stop)
    resumed = run_classifier(tmp_path / "cut")
    assert not [key for key in whole if not torch.equal(whole[key], resumed[key])]


def _worker(folder: Path, rank: int, port: int) -> None:
    os.environ.update(MASTER_PORT=str(port), LOCAL_RANK=str(rank), NODE_RANK="0")
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    for _ in train(classifier_recipe(), bars(), bars(), folder, fabric=fabric):
        pass


def test_two_processes_end_with_the_weights_of_one(tmp_path):
    one = run_classifier(tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_worker, args=(tmp_path / "two", rank, port)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
        assert worker.exitcode == 0
    two = read(tmp_path / "two" / "checkpoint.safetensors")[0]
    assert one.keys() == two.keys()
    for key, value in one.items():
        if key.startswith(("model/", "average/")):
            torch.testing.assert_close(two[key], value, rtol=2e-4, atol=2e-5)
    assert not torch.equal(one["model/head.weight"], torch.zeros_like(one["model/head.weight"]))


def test_a_batch_depends_on_the_generator_alone():
    draws = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        generator = torch.Generator().manual_seed(5)
        draws.append(random_batch(bars(), count=6, crop=2, flip=True, generator=generator))
        untouched = torch.rand((), generator=torch.Generator().manual_seed(noise))
        assert torch.equal(torch.rand(()), untouched), "the global generator was moved"
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])


def test_a_shift_brings_no_border_into_the_image():
    """A black border would be farther away than any radius: shifted images of one shade stay as they are."""
    shades = LabeledImages(torch.full((4, 1, 8, 8), 51, dtype=torch.uint8), torch.arange(4) % 2, ("a", "b"))
    images, _ = random_batch(shades, count=16, crop=3, flip=True, generator=torch.Generator().manual_seed(0))
    assert torch.equal(images, torch.full((16, 1, 8, 8), 51).float() / 255)


def test_a_shift_beyond_the_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match="crop must be smaller than the images, got 8"):
        next(train(replace(classifier_recipe(), crop=8), bars(), bars(), tmp_path))


def test_losses_at_known_values():
    logits, labels = torch.tensor([[2.0, 1.0], [0.0, 3.0]], dtype=torch.float64), torch.tensor([0, 1])
    constants = torch.tensor([[0.0, 2.0], [2.0, 0.0]], dtype=torch.float64)
    radii = torch.tensor([0.5, 1.5], dtype=torch.float64)
    expected = 0.3 * torch.log1p(torch.exp((0.4 - radii) / 0.3)).mean()
    found = LOSSES["certified-cross-entropy"](logits, labels, constants, offset=0.4, temperature=0.3)
    assert float(found) == pytest.approx(float(expected))
    margins = torch.tensor([1.0, 3.0], dtype=torch.float64) - math.sqrt(2) * 0.4
    expected = 0.3 * torch.log1p(torch.exp(-margins / 0.3)).mean()
    found = LOSSES["cross-entropy"](logits, labels, constants, offset=0.4, temperature=0.3)
    assert float(found) == pytest.approx(float(expected))
    found = LOSSES["multi-margin"](logits, labels, constants, offset=1.0, temperature=0.3)
    assert float(found) == pytest.approx((math.sqrt(2) - 1) / 2 / 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A classifier of two shades of gray, trained from the command line on a folder a class."""
    place = tmp_path_factory.mktemp("cli")
    generator = torch.Generator().manual_seed(1)
    for name, shade in (("dark", 60), ("light", 190)):
        (place / "data" / name).mkdir(parents=True)
        for k in range(12):
            pixels = (shade + torch.randint(-40, 40, (8, 8), generator=generator)).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(place / "data" / name / f"{k}.png")
    arguments = ["--data", place / "data", "--channels", "1", "--output", place / "run", "--stages", "4", "1", "--no-flip"]
    arguments += ["--dense-features", "8", "--dense-blocks", "1", "--batch-size", "8", "--schedule.steps", "30"]
    arguments += ["--schedule.learning-rate", "0.02", "--schedule.warmup-steps", "3", "--schedule.average-decay", "0.8"]
    main(["train", "classifier", *map(str, arguments)])
    return place


def test_training_from_the_command_line_writes_weights_with_a_card(trained):
    card = read_card(trained / "run" / "classifier.safetensors")
    assert card["kind"] == "classifier"
    assert card["data"]["classes"] == ["dark", "light"]
    assert card["validation"]["certified_0"] == 1.0
    assert 0.5 < card["slack_at_first"]["jacobian_norm"] <= card["slack_at_first"]["lipschitz"]
    assert 0 < card["slack"]["jacobian_norm"] <= card["slack"]["lipschitz"] * (1 + 1e-5)
    assert 0 < card["slack"]["margin_slope"] <= 1
    network = load(trained / "run" / "classifier.safetensors")
    assert network(torch.full((1, 1, 8, 8), 0.75)).argmax() == 1
    with pytest.raises(WeightsRefused, match="holds a classifier"):
        load(trained / "run" / "classifier.safetensors", kind="denoiser")


def test_certify_with_images_writes_a_row_an_image_and_a_figure(trained, capsys):
    output = trained / "report"
    weights = trained / "run" / "classifier.safetensors"
    main(["certify", str(weights), "--data", str(trained / "data"), "--output", str(output), "--epsilons", "0", "0.1", "3"])
    text = capsys.readouterr().out
    assert "clean: 100.00 % of 24 images" in text
    rows = list(csv.DictReader((output / "radii.csv").open()))
    assert len(rows) == 24
    radii = torch.tensor([float(row["certified_radius"]) for row in rows])
    share = 100 * float((radii >= 0.1).float().mean())
    assert f"certified at 0.1: {share:.2f} %" in text
    assert Image.open(output / "certified_accuracy.png").size == (960, 630)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["certify", "W", "--data", "absent"], "absent"),
        (["certify", "W", "--data", "D", "--epsilons", "36"], "36/255"),
        (["certify", "W", "--data", "D", "--epsilons", "-1"], ">= 0"),
        (["evaluate", "W", "D"], "needed is a denoiser"),
        (["certify", "denoiser-gray-small", "--data", "D"], "needed is a classifier"),
        (["train", "classifier", "--data", "D"], "0 class folders"),
        (["train", "classifier", "--loss", "hinge"], "hinge"),
        (["train", "classifier", "--temperature", "0"], "temperature"),
        (["train", "classifier", "--devices", "0"], "devices"),
        (["train", "classifier", "--card", "absent.json"], "no card"),
    ],
)
def test_bad_requests_are_refused_in_one_line(trained, arguments, text, capsys, tmp_path):
    names = {"W": str(trained / "run" / "classifier.safetensors"), "D": str(trained / "data")}
    if arguments[:2] == ["train", "classifier"]:
        names["D"] = str(trained / "data" / "dark")
        arguments = [*arguments, "--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        main([names.get(argument, argument) for argument in arguments])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err


def test_an_untrained_shape_is_refused(trained):
    network = load(trained / "run" / "classifier.safetensors")
    larger = LabeledImages(torch.zeros(2, 1, 10, 10, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"))
    with pytest.raises(ValueError, match=r"\(batch, 1, 8, 8\)"):
        evaluate(network, larger, (0.0,))
    many = LabeledImages(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 2]), ("a", "b", "c"))
    with pytest.raises(ValueError, match="2 classes"):
        evaluate(network, many, (0.0,))


def test_class_folders_are_resized_to_what_the_network_takes(trained, tmp_path, capsys):
    for name, shade in (("dark", 60), ("light", 190)):
        (tmp_path / name).mkdir()
        Image.new("L", (21, 17), shade).save(tmp_path / name / "large.png")
    weights = trained / "run" / "classifier.safetensors"
    main(["certify", str(weights), "--data", str(tmp_path), "--output", str(tmp_path / "out")])
    assert "clean: 100.00 % of 2 images" in capsys.readouterr().out
