"""`stablenet convex fit`: a table in, a saved network with its certificate out, or one `error:` line and exit code 2."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import stablenet
from stablenet.cli import main

pytest.importorskip("sklearn")
NAMES = ("length", "width", "kind", "price")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    g = np.random.default_rng(0)
    X = np.column_stack([5 + 3 * g.standard_normal(24), 100 * g.standard_normal(24)])
    price = 40 + 2 * np.abs(X[:, 0] - 5) + 0.05 * X[:, 1]
    return write(tmp_path / "t.csv", [(*x, "ab"[int(p > 44)], p) for x, p in zip(X, price, strict=True)])


def write(path: Path, rows: list[tuple[object, ...]], names: tuple[str, ...] = NAMES) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def without(table: Path, column: str) -> Path:
    with table.open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k != column} for row in csv.DictReader(file)]
    return write(table, [tuple(row.values()) for row in rows], tuple(rows[0]))


def features(table: Path, *columns: str) -> torch.Tensor:
    with table.open(newline="") as file:
        return torch.tensor([[float(row[c]) for c in columns] for row in csv.DictReader(file)], dtype=torch.float64)


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["convex", *map(str, arguments)])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_numbers(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without(table, "kind")
    saved = tmp_path / "out" / "net"
    main(["convex", "fit", str(table), "--target", "price", "--gates", "12", "--folds", "3", "--output", str(saved)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("24 rows, 2 features, no classes, beta ") and "the best of 10" in lines[0]
    assert lines[1].startswith("objective ") and "gap not certified" in lines[1]
    assert lines[2].startswith("R^2 0.") and float(lines[2].split()[1].rstrip(",")) > 0.8
    network = stablenet.load(saved.with_suffix(".safetensors"))
    X = features(table, "length", "width")
    error = network(X)[:, 0] - features(table, "price")[:, 0]
    assert float(error.abs().mean()) < 1
    card = json.loads(saved.with_suffix(".json").read_text())
    assert card["kind"] == "convex network" and card["features"] == ["length", "width"] and card["lower_bound"] is None
    assert lines[3].endswith(f"<= {stablenet.rounding.six_digits_up(stablenet.certify(network).lipschitz)} of these")


def test_classes_with_a_certified_gap_under_a_bound(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without(table, "price")
    saved = tmp_path / "net.safetensors"
    arguments = ["--beta", "0.1", "--gates", "all", "--no-intercept", "--max-lipschitz", "0.9", "--loss", "squared_hinge"]
    main(["convex", "fit", str(table), "--target", "kind", *arguments, "--folds", "2", "--output", str(saved)])
    out = capsys.readouterr().out
    assert "2 classes, beta 0.1" in out and "certified gap" in out and "accuracy " in out
    assert float(out.split("Lipschitz constant <= ")[1].split()[0]) <= 0.9
    main(["certify", str(saved)])
    assert capsys.readouterr().out.startswith("ConvexNetwork: lipschitz <= ")
    assert json.loads(saved.with_suffix(".json").read_text())["classes"] == ["a", "b"]


def test_bad_tables(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in fails(capsys, "fit", tmp_path / "absent.csv", "--target", "price")
    assert "has no column 'prices': did you mean price?" in fails(capsys, "fit", table, "--target", "prices")
    assert "row 1, column 'kind' is" in fails(capsys, "fit", table, "--target", "price")
    assert "take --task classification" in fails(capsys, "fit", table, "--target", "kind", "--task", "regression")
    short = write(tmp_path / "s.csv", [(1, 2), (3,)], ("x", "y"))
    assert "row 2 of" in fails(capsys, "fit", short, "--target", "y")
    gap = write(tmp_path / "g.csv", [(1, 2), ("", 3)], ("x", "y"))
    assert "row 2, column 'x' is ''" in fails(capsys, "fit", gap, "--target", "y")
    assert "row 2 has no 'y'" in fails(capsys, "fit", write(gap, [(1, 2), (3, "")], ("x", "y")), "--target", "y")
    assert "no name twice" in fails(capsys, "fit", write(gap, [(1, 2)], ("y", "y")), "--target", "y")
    assert "folds must lie between" in fails(capsys, "fit", write(gap, [(1, 2), (2, 3)], ("x", "y")), "--target", "y")
    with pytest.raises(SystemExit) as stop:
        main(["convex", "guess"])
    assert stop.value.code == 2 and "usage: stablenet convex fit" in capsys.readouterr().err
