"""Every command of pnp runs with the core dependencies alone: the modules of the extras cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXTRAS = ("lightning_fabric", "tensorboard", "foolbox", "pyautoattack", "onnx", "onnxruntime", "onnxscript", "onnx_ir")
EXTRAS += ("cvxpy", "hypothesis", "importlinter", "nodepy", "pytest", "six", "bm3d", "torchlip", "orthogonium", "pywt")
CODE = f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {EXTRAS!r} else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
try:
    import hypothesis
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the extras are there")
import pnp.cli
pnp.cli.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--version",), 0),
        (("deblur", "--help"), 0),
        (("deblur", "--max-iterations", "1"), 3),
        (("denoise", "--denoiser", "denoiser-gray-small"), 0),
    ],
)
def test_commands_run_without_the_extras(arguments: tuple[str, ...], code: int, tmp_path: Path) -> None:
    found = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == code, found.stderr
    assert found.stdout and "Traceback" not in found.stderr
