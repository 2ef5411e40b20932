"""The floors: import-linter's contracts hold, `import stablenet` is light, and what is public is documented."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import stablenet

ROOT = Path(__file__).parents[1]
HEAVY = (
    "deepinv",
    "lightning",
    "lightning_fabric",
    "matplotlib",
    "torchvision",
    "skimage",
    "PIL",
    "tyro",
    "pnp",
    "tensorboard",
)
CONTRACT = {
    "activations": ("slope_interval", "Clamp", "LinearSpline", "fuse"),
    "blocks": ("GradientFlow",),
    "enforcement": ("Substeps", "Step", "Rescale", "enforce", "attach"),
    "linear": ("Dense", "Conv1d", "Conv2d", "Conv3d", "PolyphaseConv2d"),
    "networks": ("Denoiser", "DenoiserArchitecture"),
    "spectral": ("upper_bound", "lower_bound"),
    "tableaus": ("EULER", "HEUN", "MIDPOINT", "RALSTON2", "SSPRK3", "KUTTA3", "HEUN3", "RALSTON3", "RK4", "RK38")
    + ("SSPRK43", "DORMAND_PRINCE", "euler_substeps", "ssprk2", "ButcherTableau"),
}


def test_import_contracts_hold():
    found = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 broken" in found.stdout


def test_importing_stablenet_is_light():
    code = f"import sys, json, stablenet; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []


@pytest.mark.parametrize("module", CONTRACT)
def test_the_public_contract(module):
    for name in CONTRACT[module]:
        assert hasattr(getattr(stablenet, module), name)


def test_everything_announced_exists():
    for name in stablenet.__all__:
        assert getattr(stablenet, name) is not None


def modules() -> list[str]:
    return sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "stablenet").rglob("*.py")
        if "_data" not in path.parts
    )


@pytest.mark.parametrize("name", modules())
def test_public_names_are_documented_and_annotated(name):
    module = __import__(name, fromlist=["_"])
    assert module.__doc__, f"{name} opens without a sentence"
    for label, value in vars(module).items():
        if label.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        if not (inspect.isfunction(value) or inspect.isclass(value)):
            continue
        assert value.__doc__ and not value.__doc__.startswith(f"{label}("), f"{name}.{label} has no docstring"
        functions = [value] if inspect.isfunction(value) else [f for f in vars(value).values() if inspect.isfunction(f)]
        for function in functions:
            if function.__name__.startswith("_") or function.__module__ != name:
                continue
            signature = inspect.signature(function)
            named = [p for p in signature.parameters.values() if p.name not in ("self", "_")]
            assert all(p.annotation is not p.empty for p in named), f"{name}.{function.__qualname__} lacks annotations"


def test_no_file_outgrows_its_idea():
    for path in (ROOT / "stablenet").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, f"{path.name} has two ideas in it"
