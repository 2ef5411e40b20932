"""The command line: the tree on stdout, or exit code 2 with one `error:` line and no traceback."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stablenet
from stablenet.cli import main
from stablenet.networks import Denoiser, DenoiserArchitecture
from stablenet.weights import save


@pytest.fixture
def weights(tmp_path) -> Path:
    path = tmp_path / "small.safetensors"
    save(Denoiser(DenoiserArchitecture(features=4, kernel_size=3, blocks=2)), path)
    return path


def fails(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    return captured.err


def fails_in_one_line(capsys, *arguments: str) -> str:
    text = fails(capsys, *arguments)
    assert text.startswith("error: ")
    assert len(text.splitlines()) == 1
    return text


def test_certify_prints_the_tree(weights, capsys):
    main(["certify", str(weights)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Denoiser: lipschitz <= 1, averagedness <= 0.")
    assert [line[:16] for line in lines[1:]] == ["├─ GradientFlow:", "└─ GradientFlow:"]
    assert all("2r=2" in line for line in lines[1:])


def test_certify_refuses_bad_files(weights, capsys, tmp_path):
    assert "no weights at" in fails_in_one_line(capsys, "certify", tmp_path / "absent.safetensors")
    assert "no weights at" in fails_in_one_line(capsys, "certify", tmp_path)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert "sha256" in fails_in_one_line(capsys, "certify", weights)
    weights.with_suffix(".json").write_text("{")
    assert "cannot be used" in fails_in_one_line(capsys, "certify", weights)
    weights.with_suffix(".json").unlink()
    assert "no card" in fails_in_one_line(capsys, "certify", weights)


def test_evaluate(weights, capsys, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 24), dtype=np.uint8)).save(folder / "a.png")
    main(["evaluate", str(weights), str(folder), "--noise-levels", "0.1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("lipschitz <= 1")
    assert lines[1].startswith("noise 0.1000 (26/255): PSNR ")
    assert "over 1 images" in lines[1]
    assert "no folder" in fails_in_one_line(capsys, "evaluate", weights, tmp_path / "absent")
    assert "sigma must lie in" in fails(capsys, "evaluate", weights, folder, "--noise-levels", "25")
    assert "seeds" in fails(capsys, "evaluate", weights, folder, "--seeds", "0")


def test_the_version_is_told_by_the_module_too(capsys, monkeypatch):
    main(["--version"])
    told = capsys.readouterr().out
    assert told.startswith(f"stablenet {stablenet.__version__} (torch ")
    monkeypatch.setattr("sys.argv", ["stablenet", "--version"])
    runpy.run_module("stablenet", run_name="__main__")
    assert capsys.readouterr().out == told


@pytest.mark.parametrize("command", ["certify", "evaluate", "attack", "export"])
def test_every_command_takes_a_device(weights, command, capsys, tmp_path):
    places = {"evaluate": [tmp_path], "export": [tmp_path / "a.onnx"]}.get(command, [])
    found = fails_in_one_line(capsys, command, weights, *places, "--device", "abacus")
    assert "device abacus" in found


def test_training_takes_a_device(tmp_path, capsys):
    for kind in ("denoiser", "classifier"):
        found = fails_in_one_line(capsys, "train", kind, "--device", "abacus", "--output", tmp_path)
        assert "device abacus is not supported: choose cpu or cuda" in found


def test_a_missing_package_is_one_line(weights, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "stablenet.evaluation", None)
    found = fails_in_one_line(capsys, "evaluate", weights, weights.parent)
    assert "a package is missing" in found and "pip install" in found


def test_an_interruption_is_one_line(weights, capsys, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stablenet.cli.certify.certify", stop)
    with pytest.raises(SystemExit) as found:
        main(["certify", str(weights)])
    assert found.value.code == 130
    assert capsys.readouterr().err == "interrupted: no file is left half-written\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["certify", "--help"],
        ["evaluate", "--help"],
        ["train", "denoiser", "--help"],
        ["train", "classifier", "--help"],
    ],
)
def test_help_reads_well(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == (0 if arguments else 2)
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert "Traceback" not in text
    assert ("usage" if arguments else "subcommand") in text.lower()


@pytest.mark.parametrize("arguments", [["fly"], ["certify"], ["train"], ["train", "forest"], ["certify", "a", "b", "c"]])
def test_bad_commands(arguments, capsys):
    fails(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--data", "absent"], "no folder of images at absent"),
        (["--patch-size", "4"], "patch_size must be >= 8"),
        (["--features", "0"], "features must be a positive integer"),
        (["--devices", "0"], "devices"),
        (["--card", "absent.json"], "no card at absent.json"),
        (["--card", "CARD"], "card"),
        (["--schedule.steps", "0"], "steps must be at least 1"),
    ],
)
def test_training_refuses_bad_requests(arguments, text, capsys, tmp_path):
    (tmp_path / "empty.json").write_text(json.dumps({"name": "no recipe"}))
    arguments = [str(tmp_path / "empty.json") if a == "CARD" else a for a in arguments]
    assert text in fails(capsys, "train", "denoiser", "--output", tmp_path / "out", *arguments)
    assert not (tmp_path / "out" / "denoiser.safetensors").exists()
