"""Put the files that a page names into the page: `python docs/include.py` after a change to one of them.

A page says `<!-- include: PATH -->` or, for parts of a file, `<!-- include: PATH:NAME, NAME -->` above a block of Python.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
MARK = r"<!-- include: (?P<path>[^: ]+)(?::(?P<names>[^>]+))? -->"
BLOCK = re.compile(rf"({MARK}\n```python\n)(?P<code>.*?)(?P<end>^```$)", re.DOTALL | re.MULTILINE)


def excerpt(path: Path, names: list[str]) -> str:
    """A whole file, or the functions, classes and constants of these names, one empty line between them."""
    text = path.read_text()
    if not names:
        return text
    lines, parts = text.splitlines(keepends=True), []
    for name in names:
        node = next(node for node in ast.parse(text).body if name in _names(node))
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        parts.append("".join(lines[first - 1 : node.end_lineno]))
    return "\n".join(parts)


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets]
    return [ast.unparse(node.target)] if isinstance(node, ast.AnnAssign) else [getattr(node, "name", "")]


def included(text: str) -> str:
    """The text of a page with the present files in it."""

    def fresh(block: re.Match[str]) -> str:
        names = [name.strip() for name in (block["names"] or "").split(",") if name.strip()]
        return block[1] + excerpt(HERE.parent / block["path"], names) + block["end"]

    return BLOCK.sub(fresh, text)


if __name__ == "__main__":
    for page in HERE.glob("*.md"):
        page.write_text(included(page.read_text()))
