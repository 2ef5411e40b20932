"""The command line restores, tells its guarantee, and answers bad input with one line, exit code 2 and no output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pnp.cli
from pnp.kernels import gaussian
from pnp.scenes.blur import observe, simulate
from stablenet.certificate import certify
from stablenet.images.reading import read_image
from stablenet.networks.denoiser import Denoiser, DenoiserArchitecture
from stablenet.weights import load, save


@pytest.fixture
def run(make_denoiser: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """Run `pnp ...` in an empty folder with the small denoiser of these tests."""
    monkeypatch.setattr("pnp.cli.inputs.load_denoiser", lambda name: make_denoiser())
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: pnp.cli.main([str(a) for a in arguments])


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    gradient = np.linspace(0, 255, 40 * 36 * 3).reshape(40, 36, 3).astype(np.uint8)
    Image.fromarray(gradient).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_without_arguments_the_bundled_photograph_is_restored(
    run: object, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run("deblur")
    printed = capsys.readouterr().out
    for word in ("guarantee", "step_size", "averaged", "PSNR", "iterations in", "converged", "assuming"):
        assert word in printed
    before, after = (float(text.split()[-1]) for text in printed.split("PSNR")[1].split(" dB")[:2])
    assert after > before + 3
    names = {path.name for path in (tmp_path / "pnp-output").iterdir()}
    assert names == {"restored.png", "comparison.png", "residuals.png", "residuals.csv", "run.json"}
    assert read_image(tmp_path / "pnp-output/restored.png").pixels.shape == (1, 1, 256, 256)
    assert [path.name for path in tmp_path.iterdir()] == ["pnp-output"]


@pytest.mark.parametrize("algorithm", ["pgd", "admm"])
@pytest.mark.parametrize("more", [(), ("--simulate",), ("--boundary", "circular")])
def test_a_color_photograph_keeps_its_size(run: object, photograph: Path, algorithm: str, more: tuple) -> None:
    run("deblur", photograph, "--kernel", "uniform", "--algorithm", algorithm, "--output", "a/b", *more)
    expected = (1, 3, 40, 36)
    assert read_image(Path("a/b/restored.png")).pixels.shape == expected


@pytest.mark.parametrize("algorithm", ["pgd", "admm", "drs", "hqs", "red", "condat-vu"])
@pytest.mark.parametrize("scheme", ["plain", "overrelaxed", "halpern", "anderson"])
def test_every_algorithm_runs_under_every_scheme(
    run: object, photograph: Path, algorithm: str, scheme: str, capsys: pytest.CaptureFixture
) -> None:
    """By name; halted early, since convergence is another test's."""
    with pytest.raises(SystemExit) as caught:
        run("deblur", photograph, "--simulate", "--algorithm", algorithm, "--scheme", scheme, "--max-iterations", "3")
    assert caught.value.code == 3
    facts = json.loads(Path("pnp-output/run.json").read_text())
    assert facts["algorithm"].lower().startswith(algorithm.replace("-", "")) and facts["scheme"].lower().startswith(scheme)


def test_the_default_prior_is_clipped_and_proves_that_a_fixed_point_exists(run: object, capsys: pytest.CaptureFixture) -> None:
    run("deblur", "--scheme", "anderson", "--float")
    printed = capsys.readouterr().out
    assert "a fixed point exists: " in printed and "assuming a fixed point exists" not in printed
    assert float(read_image(Path("pnp-output/restored.png")).pixels.min()) >= 0


def test_a_photograph_can_be_denoised(run: object, photograph: Path, capsys: pytest.CaptureFixture) -> None:
    run("denoise", photograph, "--simulate", "--noise-level", "0.1")
    assert "PSNR" in capsys.readouterr().out
    assert {path.name for path in Path("pnp-output").iterdir()} == {"denoised.png", "comparison.png", "run.json"}


BAD = {
    "missing image": (("deblur", "nope.png", "--simulate"), "nope.png does not exist"),
    "unknown blur": (("deblur", "photo.png"), "--kernel"),
    "unknown kernel": (("deblur", "photo.png", "--kernel", "nope"), "neither a file nor one of motion"),
    "kernel sum": (("deblur", "photo.png", "--kernel", "ones.npy"), "sums to 9"),
    "kernel size": (("deblur", "photo.png", "--kernel", "large.npy"), "larger than the image"),
    "step size": (("deblur", "--step-size", "2.4"), "PGD with step_size=2.4 is not covered"),
    "negative step": (("deblur", "--step-size", "-1", "--algorithm", "admm"), "finite and positive"),
    "noise level": (("deblur", "--noise-level", "-0.1"), "noise level -0.1"),
    "factor": (("deblur", "--factor", "1.01"), "--factor 1.01 is of --scheme overrelaxed"),
    "large factor": (("deblur", "--scheme", "overrelaxed", "--factor", "2.5"), "Overrelaxed with factor=2.5 is not covered"),
    "noise level of 8 bits": (("deblur", "--noise-level", "15"), "noise level 15"),
    "denoise level of 8 bits": (("denoise", "--noise-level", "15"), "noise level 15"),
    "observed level of 8 bits": (("deblur", "photo.png", "--kernel", "uniform", "--noise-level", "15"), "divide by 255"),
    "no GPU": (("deblur", "--device", "cuda:99"), "device cuda:99 is not there"),
    "no such device": (("denoise", "--device", "abacus"), "choose cpu or cuda"),
    "white level": (("denoise", "photo.png", "--white-level", "-1"), "white level -1"),
    "noise level nan": (("deblur", "--noise-level", "nan"), "noise level nan"),
    "denoiser level": (("deblur", "--denoiser-noise-level", "0.9"), "denoiser_noise_level=0.9"),
    "tolerance": (("deblur", "--tolerance", "-1"), "tolerance"),
    "iterations": (("deblur", "--max-iterations", "0"), "max_iterations"),
    "output is a file": (("deblur", "--output", "photo.png"), "photo.png is a file"),
    "text as image": (("deblur", "ones.npy", "--simulate"), "cannot be read as an image"),
    "denoise level": (("denoise", "--noise-level", "0.9"), "denoiser_noise_level=0.9"),
    "denoise missing": (("denoise", "nope.png"), "nope.png does not exist"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    name: str, run: object, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    np.save("ones.npy", np.ones((3, 3)))
    np.save("large.npy", np.full((50, 50), 1 / 2500))
    before = sorted(tmp_path.rglob("*"))
    arguments, message = BAD[name]
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A small denoiser of stablenet, untrained, saved with its card."""
    torch.manual_seed(0)
    network = Denoiser(DenoiserArchitecture(features=4, kernel_size=3, blocks=2))
    save(network, tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


@pytest.mark.parametrize("algorithm", ["pgd", "admm"])
def test_weights_of_ones_own_are_certified_and_used(
    weights: Path, photograph: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(weights.parent)
    arguments = ["deblur", str(photograph), "--kernel", "uniform", "--algorithm", algorithm, "--denoiser", str(weights)]
    pnp.cli.main(arguments)
    printed = capsys.readouterr().out
    assert str(certify(load(weights)).certificate) in printed and "run          converged" in printed


@pytest.mark.parametrize("name", ["small.safetensors", "no-such-denoiser", "missing.safetensors"])
def test_changed_or_missing_weights_are_refused(
    name: str, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(weights.parent)
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    with pytest.raises(SystemExit) as caught:
        pnp.cli.main(["deblur", "--denoiser", name])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and name in error
    assert not (weights.parent / "pnp-output").exists()


@pytest.mark.parametrize("arguments", [(), ("deblur", "--algorithm", "nope"), ("deblur", "--nope")])
def test_a_wrong_command_line_exits_with_2(run: object, arguments: tuple, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize("arguments", [("--help",), ("deblur", "--help"), ("denoise", "--help")])
def test_help_is_given(run: object, arguments: tuple, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("usage: pnp", "guarantee" if len(arguments) == 1 else "--noise-level"))


@pytest.mark.parametrize("side", [7, 8])
def test_a_photograph_and_its_periodic_copy_are_aligned(side: int) -> None:
    """Inside, the blur without a boundary is the periodic one, at the same pixels."""
    sharp = torch.rand(1, 1, 30, 28, generator=torch.Generator().manual_seed(0))
    kernel = gaussian(side, 1.5)
    settings = {"noise_level": 0.0, "seed": 0}
    valid = simulate(sharp, kernel, boundary="valid", **settings)
    periodic = simulate(sharp, kernel, boundary="circular", **settings)
    torch.testing.assert_close(valid.measurement, valid.visible(periodic.measurement), atol=1e-6, rtol=0)


def test_an_observed_photograph_starts_from_itself() -> None:
    y = torch.rand(1, 3, 20, 21, generator=torch.Generator().manual_seed(0))
    scene = observe(y, gaussian(5, 1.0), boundary="valid")
    assert scene.physics.A(scene.start).shape == y.shape
    torch.testing.assert_close(scene.visible(scene.start), y)
