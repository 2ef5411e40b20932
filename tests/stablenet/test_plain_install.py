"""With the core dependencies alone every command works, or says in one line which extra it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stablenet.enforcement import enforce
from stablenet.networks import Classifier, ClassifierArchitecture, Denoiser, DenoiserArchitecture
from stablenet.weights import save

ROOT = Path(__file__).parents[2]
RUN = """
import contextlib, io, json, sys, traceback
EXTRAS = ("lightning_fabric", "tensorboard", "torch.utils.tensorboard", "foolbox", "pyautoattack", "onnx", "onnxruntime",
          "onnxscript", "cvxpy", "sklearn")
sys.modules |= dict.fromkeys(EXTRAS)  # as if not installed: import raises, find_spec finds nothing
from stablenet.cli import main
found = {}
for name, arguments in json.loads(sys.argv[1]).items():
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main(arguments)
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            code = traceback.format_exc()
    found[name] = (code, out.getvalue())
print(json.dumps(found))
"""
QUICK = ["--dimensions", "4", "--ratios", "3", "--seeds", "1", "--width", "8", "--steps", "5"]
SMALL = ["--data", "MNIST", "--count", "2", "--output", "OUT"]
COMMANDS = {
    "version": ["--version"],
    "help": ["--help"],
    "certify": ["certify", "WEIGHTS"],
    "certify images": ["certify", "CLASSIFIER", "--data", "MNIST", "--output", "OUT"],
    "certify cuda": ["certify", "WEIGHTS", "--device", "cuda:99"],
    "evaluate": ["evaluate", "WEIGHTS", "IMAGES"],
    "evaluate device": ["evaluate", "WEIGHTS", "IMAGES", "--device", "cpu", "--noise-levels", "0.1"],
    "attack": ["attack", "CLASSIFIER", *SMALL],
    "export pt2": ["export", "CLASSIFIER", "OUT/c.pt2"],
    "export onnx": ["export", "CLASSIFIER", "OUT/c.onnx"],
    "margins": ["margins", *QUICK, "--output", "OUT/margins"],
    "convex": ["convex", "fit", "OUT/absent.csv", "--target", "y"],
    "train help": ["train", "--help"],
    "train denoiser help": ["train", "denoiser", "--help"],
    "train denoiser": ["train", "denoiser", "--data", "IMAGES", "--output", "OUT/train"],
    "train classifier": ["train", "classifier", "--data", "MNIST", "--output", "OUT/train"],
}


def write_mnist(folder: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    for prefix in ("train", "t10k"):
        header = bytes([0, 0, 8, 3]) + np.array([6, 28, 28], ">u4").tobytes()
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = np.arange(6, dtype=np.uint8)
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(
            bytes([0, 0, 8, 1]) + np.array([6], ">u4").tobytes() + labels.tobytes()
        )


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, tuple[int, str]]:
    """Every command, run in one process that cannot import the extras: its exit code and what it printed."""
    place = tmp_path_factory.mktemp("plain")
    for name in ("images", "mnist"):
        (place / name).mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 24), dtype=np.uint8)).save(place / "images" / "a.png")
    write_mnist(place / "mnist")
    classifier = Classifier(ClassifierArchitecture(stages=((4, 1),), dense_features=8, dense_blocks=1))
    for name, network in (("d", Denoiser(DenoiserArchitecture(features=4, kernel_size=3, blocks=2))), ("c", classifier)):
        enforce(network, certified=True)
        save(network, place / f"{name}.safetensors")
    text = json.dumps(COMMANDS)
    places = {"WEIGHTS": "d.safetensors", "CLASSIFIER": "c.safetensors", "IMAGES": "images", "MNIST": "mnist", "OUT": "out"}
    for name, path in places.items():
        text = text.replace(name, str(place / path))
    run = subprocess.run(
        [sys.executable, "-c", RUN, text],
        cwd=place,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("version", "stablenet 0."),
        ("help", "evaluate"),
        ("certify", "Denoiser: lipschitz <= 1"),
        ("certify images", "certified_accuracy.png"),
        ("evaluate", "noise 0.1569 (40/255): PSNR"),
        ("evaluate device", "noise 0.1000 (26/255): PSNR"),
        ("export pt2", "wrote"),
        ("margins", "wrote margins.json and margins.png"),
        ("train help", "usage: stablenet train {denoiser,ridge,guided,classifier}"),
        ("train denoiser help", "--schedule.learning-rate"),
    ],
)
def test_commands_that_need_no_extra_work(found, command, text):
    code, output = found[command]
    assert code in (0, None), output
    assert text in output


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("attack", "attack"),
        ("convex", "convex"),
        ("export onnx", "export"),
        ("train denoiser", "train"),
        ("train classifier", "train"),
    ],
)
def test_the_others_name_the_extra_in_one_line(found, command, extra):
    code, output = found[command]
    assert code == 2, (code, output)
    line = output.splitlines()[-1]
    assert line.startswith("error: ") and f"pip install 'stablenet[{extra}]'" in line
    assert "Traceback" not in output
    assert len([row for row in output.splitlines() if row.startswith("error: ")]) == 1


def test_default_levels_are_those_of_the_table_that_evaluate_repeats(found):
    levels = [line.split("(")[1].split("/")[0] for line in found["evaluate"][1].splitlines() if line.startswith("noise")]
    head = next(line for line in (ROOT / "README.md").read_text().splitlines() if "| test set |" in line)
    assert levels == [cell.strip() for cell in head.split("|")[5:-1]]


def test_a_missing_device_is_one_line(found):
    code, output = found["certify cuda"]
    assert code == 2 and output.startswith("error: device cuda:99 is not there")
