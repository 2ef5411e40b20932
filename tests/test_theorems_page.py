"""Every guarantee is a line of docs/theorems.md with its code and its test: what the page names is there."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/theorems.md").read_text()
LINES = re.findall(r"^\*\*([A-Z]\d+)\. .*?(?=^\*\*[A-Z]\d+\. |^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
FOLDERS = ("stablenet", "pnp", "tests", "benchmarks", "examples", "docs")


@cache
def files() -> list[str]:
    found = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py") if "_data" not in p.parts]
    return ["/" + str(path.relative_to(ROOT)) for path in found]


@cache
def code() -> str:
    return "\n".join(Path(f"{ROOT}{path}").read_text() for path in files() if path.startswith(("/stablenet", "/pnp")))


def names() -> list[str]:
    return sorted({" ".join(name.split()) for name in re.findall(r"`([^`]+)`", PAGE)})


@pytest.mark.parametrize("name", [name for name in names() if name.endswith(".py") or re.fullmatch(r"[\w/]+/\w*", name)])
def test_paths_exist(name):
    ending = "/" + name
    assert any(path.endswith(ending) for path in files()) or (ROOT / name).is_dir(), f"{name} is no file of the project"


@pytest.mark.parametrize(
    "name", [name for name in names() if re.fullmatch(r"[A-Za-z_]+(\.[A-Za-z_]+)+", name) and name[-3:] != ".py"]
)
def test_names_exist(name):
    last = name.split(".")[-1]
    defined = rf"(def|class) {last}\b|^\s*{last}(:.*)? = |\b{last}: |/{last}\.py"
    assert re.search(defined, code(), re.MULTILINE) or any(re.search(rf"/{last}(\.py|/)", path) for path in files())


@pytest.mark.parametrize("section", re.findall(r"^## (.*)", PAGE, re.MULTILINE))
def test_each_section_names_its_tests(section):
    text = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]
    assert re.search(r"`(tests/\S+\.)?\w*(theorems/)?test_\w+\.py`|`tests/", text)


def test_each_theorem_says_where_it_comes_from():
    for number in LINES:
        text = re.search(rf"^\*\*{number}\. .*?(?=^\*\*[A-Z]\d+\. |^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[0]
        assert re.search(r"[Dd]erived|\[[A-Z]\w+(19|20)\d\d|\b[A-Z]\d+\b.*\b[A-Z]\d+\b|Code", text, re.DOTALL), number
