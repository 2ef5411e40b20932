"""Noisy 2-XOR and the study of it: data as they are meant, a command that repeats and goes on where it stopped."""

from __future__ import annotations

import json

import pytest
import torch

from stablenet.cli import main
from stablenet.convex.toys import noisy_xor, xor_population
from stablenet.training.sample_complexity import KERNEL, NETWORK, Training, compare
from tests.stablenet.test_cli import fails_in_one_line

SMALL = ("margins", "--dimensions", "4", "--ratios", "3", "6", "--seeds", "1", "--width", "20", "--steps", "60")


def test_noisy_xor_is_its_distribution():
    X, y = noisy_xor(4000, 6, generator=torch.Generator().manual_seed(0))
    assert X.shape == (4000, 6) and X.dtype == y.dtype == torch.float32
    assert torch.equal(y, X[:, 0].abs() - X[:, 1].abs())
    assert set(map(tuple, X[:, :2].tolist())) == {(1, 0), (-1, 0), (0, 1), (0, -1)} and set(X[:, 2:].unique().tolist()) == {
        -1,
        1,
    }
    moments = X.T @ X / len(X)
    torch.testing.assert_close(moments, torch.diag(torch.tensor([0.5, 0.5, 1, 1, 1, 1])), rtol=0, atol=0.06)
    assert float(X.mean(0).abs().max()) < 0.06 and abs(float(y.mean())) < 0.06
    again, _ = noisy_xor(4000, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(X, again)
    for n, d in ((0, 6), (5, 1)):
        with pytest.raises(ValueError, match="needs n >= 1 points in d >= 2 dimensions"):
            noisy_xor(n, d)


def test_the_population_has_every_point_once():
    X, y = xor_population(5)
    assert len(X) == len(set(map(tuple, X.tolist()))) == 32 and torch.equal(y, X[:, 0].abs() - X[:, 1].abs())
    drawn, _ = noisy_xor(2000, 5, generator=torch.Generator().manual_seed(0))
    assert set(map(tuple, drawn.tolist())) == set(map(tuple, X.tolist()))
    for d in (1, 21):
        with pytest.raises(ValueError, match=f"must lie in 2..20, got {d}"):
            xor_population(d)


def test_the_network_needs_fewer_points_than_the_kernel():
    training = Training(width=60, steps=500, learning_rate=3e-2)
    found = {o.model: o for o in compare(noisy_xor, 10, 100, 0, training, tested=1000)}
    assert found[NETWORK].accuracy > 0.99 > 0.95 > found[KERNEL].accuracy > 0.5
    assert found[NETWORK].margin > 0.09
    with pytest.raises(ValueError, match="from 1 to 10000 points"):
        next(compare(noisy_xor, 10, 20_000, 0, Training()))


def test_the_command_repeats_and_goes_on_where_it_stopped(capsys, tmp_path):
    main([*SMALL, "--lazy", "--output", str(tmp_path / "a")])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed[:-1]] == [
        f"d = 4, n = {n}, {model}" for model in ("network", "lazy network", "tangent kernel") for n in (12, 24)
    ]
    held = json.loads((tmp_path / "a/margins.json").read_text())
    assert (tmp_path / "a/margins.png").stat().st_size > 10_000 and len(held["outcomes"]) == 6
    shares = {o["model"]: o["accuracy"] for o in held["outcomes"] if o["points"] == 24}
    assert f"d = 4, n = 24, tangent kernel: {100 * shares['tangent kernel']:.1f} %" in "\n".join(printed)
    stopped = {**held, "outcomes": held["outcomes"][:3]}
    stopped["outcomes"][0]["accuracy"] = 0.123  # kept, not made again
    (tmp_path / "a/margins.json").write_text(json.dumps(stopped))
    main([*SMALL, "--lazy", "--output", str(tmp_path / "a")])
    assert "12.3 % (12.3 to 12.3)" in capsys.readouterr().out
    again = json.loads((tmp_path / "a/margins.json").read_text())["outcomes"]
    strip = lambda rows: [{k: v for k, v in row.items() if k != "seconds"} for row in rows]  # noqa: E731
    assert strip(again[3:]) == strip(held["outcomes"][3:])


def test_another_study_is_not_mixed_in(capsys, tmp_path):
    main([*SMALL, "--output", str(tmp_path)])
    before = (tmp_path / "margins.json").read_text()
    assert "was made with another width, decay: choose another --output" in fails_in_one_line(
        capsys, *SMALL, "--output", tmp_path, "--width", "21", "--decay", "0"
    )
    assert (tmp_path / "margins.json").read_text() == before
    (tmp_path / "margins.json").write_text("[1]")
    assert "is no table of this command" in fails_in_one_line(capsys, *SMALL, "--output", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--seeds", "0"), "seeds and tested must be at least 1"),
        (("--tested", "0"), "seeds and tested must be at least 1"),
        (("--dimensions", "2"), "dimensions must be at least 3"),
        (("--ratios", "0"), "dimension times ratio in (0, 10000]"),
        (("--ratios", "nan"), "dimension times ratio in (0, 10000]"),
        (("--ratios", "5000"), "dimension times ratio in (0, 10000]"),
        (("--width", "0"), "width must be at least 1"),
        (("--steps", "0"), "steps must be at least 1"),
        (("--decay", "-1"), "decay must not be negative"),
        (("--learning-rate", "0"), "learning_rate must be positive"),
        (("--start", "nan"), "start must be positive"),
    ],
)
def test_bad_requests_are_one_line_and_write_nothing(arguments, text, capsys, tmp_path):
    output = tmp_path / "out"
    assert text in fails_in_one_line(capsys, *SMALL, "--output", output, *arguments)
    assert not output.exists()
