"""The house as it is meant: floors, sizes, names, no cycles, nothing private across modules, no global state."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pnp
import stablenet

ROOT = Path(__file__).parents[1]
PACKAGES = ("stablenet", "pnp")
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
    "blocks": ("GradientFlow", "NOK", "Reconstructed"),
    "enforcement": ("Substeps", "Step", "Rescale", "enforce", "attach"),
    "linear": ("Dense", "Conv1d", "Conv2d", "Conv3d", "PolyphaseConv2d"),
    "kernels": ("arc_cosine", "gated_ntk", "neural_optimization", "ntk"),
    "proximal": ("Nonnegative", "ShiftedNonnegative", "SoftThreshold", "LeakyNonnegative", "GroupSoftThreshold")
    + ("HardThreshold", "GroupMaximum"),
    "networks": ("Denoiser", "DenoiserArchitecture"),
    "spectral": ("upper_bound", "lower_bound"),
    "tableaus": ("EULER", "HEUN", "MIDPOINT", "RALSTON2", "SSPRK3", "KUTTA3", "HEUN3", "RALSTON3", "RK4", "RK38")
    + ("SSPRK43", "DORMAND_PRINCE", "euler_substeps", "ssprk2", "ButcherTableau"),
}
LINES, CODE = 250, 40
GLOBAL_STATE = {  # what a library leaves to its caller, and what runs foreign code
    ("torch", "manual_seed"),
    ("torch", "load"),
    ("torch", "set_num_threads"),
    ("np", "seed"),
    ("random", "seed"),
    ("matplotlib", "use"),
    ("plt", "switch_backend"),
    ("pickle", "load"),
    ("pickle", "loads"),
    ("pickle", "dump"),
    ("pickle", "dumps"),
}

RESTORED = {"stablenet.linear.spreading: torch.set_num_threads"}
"""State that is set for the calling thread within one scope and put back, even after an exception: test_threads.py holds it."""


@cache
def files() -> dict[str, Path]:
    """Every module of both packages by its dotted name."""
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "_data" not in path.parts]
    return {dotted(path): path for path in sorted(found)}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(files()[name].read_text())


def test_import_contracts_hold():
    found = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 broken" in found.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_stands_on_a_floor(package):
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = {name.strip() for contract in contracts for layer in contract.get("layers", ()) for name in layer.split("|")}
    children = {".".join(name.split(".")[:2]) for name in files() if name.startswith(f"{package}.")}
    assert children - named == {f"{package}.__main__"}


def test_importing_stablenet_is_light():
    code = f"import sys, json, stablenet; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []


@pytest.mark.parametrize("module", CONTRACT)
def test_the_public_contract(module):
    for name in CONTRACT[module]:
        assert hasattr(getattr(stablenet, module), name)


@pytest.mark.parametrize("package", [stablenet, pnp], ids=PACKAGES)
def test_everything_announced_exists(package):
    for name in package.__all__:
        assert getattr(package, name) is not None


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_say_that_they_are_typed(package):
    assert (ROOT / package / "py.typed").exists()


@pytest.mark.parametrize("name", files())
def test_public_names_are_documented_and_annotated(name):
    if name.endswith("__main__"):
        assert ast.get_docstring(tree(name))
        return
    module = importlib.import_module(name)
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
            parameters = inspect.signature(function).parameters.values()
            named = [p for p in parameters if p.name not in ("self", "_")]
            assert all(p.annotation is not p.empty for p in named), f"{name}.{function.__qualname__} lacks annotations"


def test_no_file_outgrows_its_idea():
    assert not [name for name, path in files().items() if len(path.read_text().splitlines()) > LINES]


def code_lines(function: ast.FunctionDef, lines: list[str]) -> int:
    """Lines of a function's body without its docstring, comments and blank lines."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    inside = lines[body[0].lineno - 1 : function.end_lineno]
    return sum(1 for line in inside if line.strip() and not line.strip().startswith("#"))


def functions(name: str) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(tree(name)) if isinstance(node, ast.FunctionDef))


def test_no_function_outgrows_a_screen():
    long = set()
    for name, path in files().items():
        lines = path.read_text().splitlines()
        long |= {f"{name}.{function.name}" for function in functions(name) if code_lines(function, lines) > CODE}
    assert not long


def test_no_public_function_takes_anything_by_keyword():
    """Except where the keywords are data: `require_positive(inputs=..., outputs=...)`, `save(..., seed=0)` for the card."""
    assert not [
        f"{name}.{function.name}"
        for name in files()
        for function in functions(name)
        if not private(function.name) and function.args.kwarg and function.args.kwarg.arg not in ("values", "provenance")
    ]


def imports(name: str) -> Iterator[tuple[str, str, str]]:
    """(module, name in it, the name it gets here) of every import within the two packages, those inside functions too."""
    package = name if files()[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*base, module] if module else base)
            if module.split(".")[0] in PACKAGES:
                yield from ((module, alias.name, alias.asname or alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in PACKAGES:
                    yield alias.name, "", alias.asname or alias.name


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_nothing_private_is_used_across_modules():
    found = set()
    for name in files():
        modules = set()
        for module, item, here in imports(name):
            if private(item) or any(private(part) for part in module.split(".")):
                found.add(f"{name}: {module}.{item}")
            if not item or f"{module}.{item}" in files():
                modules.add(here)
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Attribute) and private(node.attr) and ast.unparse(node.value) in modules:
                found.add(f"{name}: {ast.unparse(node)}")
    assert not found


def test_imports_have_no_cycle():
    edges = {name: {t for m, item, _ in imports(name) if (t := target(m, item)) != name} for name in files()}
    found = {" -> ".join(cycle) for name in edges if (cycle := way_back(name, edges))}
    assert not found


def target(module: str, item: str) -> str:
    inner = f"{module}.{item}"
    return inner if inner in files() else module


def way_back(start: str, edges: dict[str, set[str]]) -> list[str]:
    """A shortest way from a module through its imports back to itself; empty where there is none."""
    ways, seen = [[start]], set()
    for way in ways:
        for following in sorted(edges.get(way[-1], ())):
            if following == start:
                return [*way, start]
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    return []


def test_no_name_hides_a_module():
    hidden = set()
    for name in files():
        if name.endswith("__main__"):
            continue
        parent, _, last = name.rpartition(".")
        defined = {node.name for node in tree(name).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        if last in defined:
            hidden.add(f"{name}.{last}")
        module = importlib.import_module(name)
        if parent and getattr(sys.modules[parent], last, module) is not module:
            hidden.add(name)
    assert not hidden


def forks(node: ast.AST) -> bool:
    """Whether a block of code leaves torch's global generator as it was."""
    return isinstance(node, ast.With) and any("torch.random.fork_rng(" in ast.unparse(item) for item in node.items)


def test_the_packages_touch_no_global_state():
    found = set()
    for name in files():
        restored = {id(inner) for block in ast.walk(tree(name)) if forks(block) for inner in ast.walk(block)}
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Attribute) and id(node) not in restored:
                root, what = ast.unparse(node.value).rpartition(".")[2], node.attr
                if (root, what) in GLOBAL_STATE:
                    found.add(f"{name}: {root}.{what}")
            elif isinstance(node, ast.Import | ast.ImportFrom):
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                found |= {f"{name}: {m}" for m in modules if m.split(".")[0] in ("pickle", "dill", "joblib", "cloudpickle")}
    assert not found - RESTORED


def test_every_key_resolves_in_the_references():
    known = set(re.findall(r"^@\w+\{(\w+),", (ROOT / "docs/references.bib").read_text(), re.MULTILINE))
    texts = [*files().values(), *(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    texts += [path for folder in ("tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")]
    unknown = {
        f"{path.relative_to(ROOT)}: {key}"
        for path in texts
        for key in re.findall(r"\[([A-Z][A-Za-z]+(?:19|20)\d\d[a-z]?)[\],]", path.read_text())
        if key not in known
    }
    assert not unknown
