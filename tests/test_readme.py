"""The README is executed: its Python as pasted, each block by itself, and its commands as the command lines read them."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

import pnp.cli
import stablenet.cli
from pnp.cli import commandline as pnp_commands
from stablenet.cli import commandline as stablenet_commands
from stablenet.cli.convex import ACTIONS
from stablenet.cli.train import TRAININGS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))}


def blocks(language: str, text: str = README) -> list[str]:
    """The fenced blocks of a language; of none, those that show output."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in fenced if name == language]


def commands() -> list[str]:
    """Every command of the fenced blocks and, in running text, those in backticks."""
    fenced = [part for block in blocks("bash") for line in block.splitlines() for part in line.partition(" #")[0].split("&&")]
    spans = [span.replace("\n", " ") for text in PAGES.values() for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    inline = [span for span in spans if re.match(r"(stablenet|pnp|python -m (stablenet|pnp)) [a-z-]", span)]
    return sorted({command.strip() for command in fenced + inline if command.strip()})


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_each_block_of_python_runs_as_pasted(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("python")[number], f"README.md, block {number + 1}", "exec"), {"__name__": "__main__"})
    if number == 0:  # what the README says that it prints
        assert blocks("")
        assert set("".join(blocks("")).splitlines()) <= set(capsys.readouterr().out.splitlines())


class Parsed(Exception):
    """Raised in place of running a command."""


def stop(*_: object, **__: object) -> None:
    raise Parsed


@pytest.fixture
def parsing(monkeypatch):
    """Command lines that parse and run nothing."""
    ours = (*stablenet_commands.COMMANDS.values(), *TRAININGS.values(), *ACTIONS.values())
    for command in (*ours, pnp_commands.Deblur, pnp_commands.Denoise):
        monkeypatch.setattr(command, "run", stop)


@pytest.mark.parametrize("command", commands())
def test_each_command_is_one_that_parses(command, parsing, capsys):
    command = re.sub(r"^python -m (stablenet|pnp)", r"\1", command)
    words = shlex.split(re.sub(r"[\[(]?--?\.\.\.[\])]?|\[(--[^\]]+)\]", r"\1", command))
    while words and re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        words.pop(0)
    if words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"\w+", (re.search(r"\[(.*)\]", command) or [""])[0])) <= set(extras)
    elif words[0] in ("stablenet", "pnp"):
        main = {"stablenet": stablenet.cli.main, "pnp": pnp.cli.main}[words[0]]
        if words[1:] in (["--version"], ["train"], ["convex"]):
            pytest.skip("the command line's own")
        try:
            main(words[1:])
        except Parsed:
            return
        except SystemExit as end:
            assert end.code in (0, None) and "--help" in words, capsys.readouterr()
            return
        raise AssertionError(f"{command} did not reach its run")
    else:
        assert words[0] in ("pytest", "bash", "python"), f"{command}: no command of this project"
        assert all((ROOT / word).exists() for word in words[1:] if word.endswith((".py", "/run")))


def test_the_commands_that_set_up_stand_where_ci_looks_for_them():
    main, test = (re.search(rf"<!-- {name} -->\n```bash\n(.*?)\n```", README) for name in ("main job", "test"))
    assert main[1] == "pip install . && pnp deblur"
    assert test[1] == 'pip install -e ".[test]" && pytest'


def test_links_lead_somewhere():
    for name, text in PAGES.items():
        here = ROOT if name in ("README.md", "CONTRIBUTING.md") else ROOT / "docs"
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert link.startswith("http") or (here / link).exists(), f"{name}: {link}"
