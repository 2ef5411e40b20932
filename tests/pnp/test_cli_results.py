"""The folder of results tells the whole run, at the depth of the image, also where Ctrl-C or a spent budget ended it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import pnp.cli
import pnp.cli.restoring
import stablenet
from stablenet.images.reading import read_image

Run = Callable[..., int]


@pytest.fixture
def run(make_denoiser: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `pnp ...` in an empty folder with the small denoiser of these tests; returns the exit code."""
    monkeypatch.setattr("pnp.cli.inputs.load_denoiser", lambda name: make_denoiser())
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> int:
        try:
            pnp.cli.main([str(a) for a in arguments])
        except SystemExit as end:
            return int(end.code)
        return 0

    return command


def picture(path: Path, dtype: type = np.uint8, white: float = 255) -> Path:
    gradient = np.linspace(0, 1, 24 * 20 * 3).reshape(24, 20, 3)
    tifffile.imwrite(path, (white * gradient).astype(dtype), photometric="rgb")
    return path


def told(folder: Path = Path("pnp-output")) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_a_run_is_told_whole(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("deblur", picture(tmp_path / "a.tif"), "--kernel", "uniform", "--simulate", "--seed", 3) == 0
    printed, facts = capsys.readouterr().out, told()
    assert facts["exit_reason"] == "converged" and facts["exit_code"] == 0
    assert (
        facts["settings"]["seed"] == 3 and facts["settings"]["kernel"] == "uniform" and facts["settings"]["algorithm"] == "pgd"
    )
    assert facts["guarantee"] in printed and facts["machine"]["versions"]["stablenet"] == stablenet.__version__
    assert f"{facts['psnr']['before']:.2f} dB before, {facts['psnr']['after']:.2f} dB after" in printed
    assert facts["image"]["path"].endswith("a.tif") and facts["image"]["bits"] == 8 and facts["kernel"]["shape"] == [9, 9]
    rows = list(csv.reader(Path("pnp-output/residuals.csv").read_text().splitlines()))
    assert rows[0] == ["iteration", "residual"] and len(rows) == facts["iterations"] + 1
    assert float(rows[-1][1]) == pytest.approx(facts["residual"]) and facts["residual"] <= facts["tolerance"]


@pytest.mark.parametrize(("dtype", "white", "bits"), [(np.uint8, 255, 8), (np.uint16, 65535, 16), (np.float32, 1, 16)])
@pytest.mark.parametrize("command", ["denoise", "deblur"])
def test_the_depth_of_the_image_is_kept(command: str, dtype: type, white: float, bits: int, run: Run, tmp_path: Path) -> None:
    kernel = ("--kernel", "uniform") if command == "deblur" else ()
    assert run(command, picture(tmp_path / "a.tif", dtype, white), *kernel, "--float") == 0
    name = {"denoise": "denoised", "deblur": "restored"}[command]
    clipped, floats = read_image(Path(f"pnp-output/{name}.png")), read_image(Path(f"pnp-output/{name}.tiff"))
    assert clipped.bits == bits and floats.bits == 32
    torch.testing.assert_close(clipped.pixels, floats.pixels.clamp(0, 1), rtol=0, atol=0.51 / (2**bits - 1))


def test_an_unclipped_measurement_is_used_as_it_is(run: Run, tmp_path: Path) -> None:
    noisy = np.full((24, 20), 0.02, np.float32) + 0.1 * np.random.default_rng(0).standard_normal((24, 20)).astype(np.float32)
    assert noisy.min() < -0.1
    tifffile.imwrite(tmp_path / "noisy.tif", noisy)
    assert run("denoise", tmp_path / "noisy.tif", "--noise-level", "0.1", "--float") == 0
    mean = float(read_image(Path("pnp-output/denoised.tiff")).pixels.mean())
    assert mean == pytest.approx(float(noisy.mean()), abs=1e-4)


def test_the_level_of_white_can_be_told(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    dark = picture(tmp_path / "dark.tif", np.uint16, 4095)
    assert run("denoise", dark) == 0
    assert "--white-level 4095" in capsys.readouterr().out
    assert run("denoise", dark, "--white-level", 4095) == 0
    assert float(read_image(Path("pnp-output/denoised.png")).pixels.max()) > 0.9


def test_a_spent_budget_is_told_by_the_exit_code(run: Run, capsys: pytest.CaptureFixture) -> None:
    assert run("deblur", "--max-iterations", 2) == 3
    assert "not converged: 2 iterations" in capsys.readouterr().out
    assert told()["exit_reason"] == "not converged" and Path("pnp-output/restored.png").exists()


def interrupting(after: int) -> Callable[..., Iterator]:
    carry_out = pnp.cli.restoring.iterate

    def iterate(*arguments: object) -> Iterator:
        for record in carry_out(*arguments):
            if record.iteration > after:
                raise KeyboardInterrupt
            yield record

    return iterate


def test_an_interrupted_run_keeps_what_it_reached(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run("deblur", "--max-iterations", 3, "--output", "three") == 3
    monkeypatch.setattr("pnp.cli.restoring.iterate", interrupting(after=3))
    assert run("deblur") == 130
    printed = capsys.readouterr().out
    assert "interrupted: 3 iterations" in printed and "what iteration 3 had reached is written" in printed
    assert told()["exit_reason"] == "interrupted" and told()["best_iteration"] == 3
    pictures = [read_image(Path(folder, "restored.png")).pixels for folder in ("pnp-output", "three")]
    assert torch.equal(*pictures)


def test_a_run_interrupted_before_its_first_iterate_writes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr("pnp.cli.restoring.iterate", interrupting(after=0))
    assert run("deblur") == 130
    assert "stopped: nothing was written" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_second_interrupt_while_writing_leaves_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pnp.report.figures.residual_plot", interrupt)
    assert run("deblur", "--max-iterations", 2) == 130
    assert "nothing was written" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_versions_are_told_and_python_runs_the_package() -> None:
    found = subprocess.run([sys.executable, "-m", "pnp", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout.startswith(f"pnp {stablenet.__version__} (torch ") and "deepinv" in found.stdout


def test_16_bits_of_color_go_through(run: Run, tmp_path: Path) -> None:
    """A picture written at 16 bits is read again at 16 bits."""
    assert run("denoise", picture(tmp_path / "a.tif", np.uint16, 65535)) == 0
    assert run("denoise", "pnp-output/denoised.png", "--output", "again") == 0
    assert told(Path("again"))["image"]["bits"] == 16
    assert Image.open("pnp-output/comparison.png").size[0] > 0
