"""Torch is loaded after the package has said how its threads wait, and never against what the user has set."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROBE = """
import os, sys

class Probe:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))

sys.meta_path.insert(0, Probe())
import {package}
"""


@pytest.mark.parametrize(
    ("package", "given", "expected"),
    [
        ("stablenet", {}, "1000"),
        ("stablenet.cli", {}, "1000"),
        ("pnp", {}, "1000"),
        ("pnp.cli", {}, "1000"),
        ("pnp", {"GOMP_SPINCOUNT": "7"}, "7"),
        ("pnp", {"OMP_WAIT_POLICY": "PASSIVE"}, "None"),
    ],
)
def test_threads_wait_briefly_unless_told_otherwise(package, given, expected):
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    result = subprocess.run(
        [sys.executable, "-c", PROBE.format(package=package)], env=plain | given, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == [expected]
