"""Writes what follows from the code: the tables of README.md and the pages of docs/. ``--check`` only compares."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import gymnasium

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mtl_gym.cli import tables


def markdown(rows: list[dict[str, str]]) -> str:
    """A table of rows."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(_cells(row)) + " |" for row in rows])


def _cells(row: dict[str, str]) -> list[str]:
    return [f"`{value}`" if name in ("id", "name", "home") else value for name, value in row.items()]


def readme() -> str:
    """README.md with the tables between its markers written anew."""
    text = (ROOT / "README.md").read_text()
    for name, rows in tables().items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        head, rest = text.split(begin)
        text = head + begin + markdown(rows) + end + rest.split(end)[1]
    return text


def pages() -> dict[Path, str]:
    """A page for each environment, from its docstring."""
    result = {}
    for id in sorted(id for id in gymnasium.registry if id.startswith("mtl_gym/")):
        module, name = str(gymnasium.spec(id).entry_point).split(":")
        manual = inspect.getdoc(getattr(__import__(module, fromlist=[name]), name)) or ""
        stem = module.rsplit(".", 1)[1]
        result[ROOT / "docs" / f"{stem}.md"] = f"# `{id}`\n\n{_fenced(manual)}\n"
    return result


def _fenced(manual: str) -> str:
    """Puts the example's lines into a block."""
    head, rest = manual.split("## Example\n")
    example, tail = rest.split("\n\n", 1)
    head, tail = head.replace("``", "`"), tail.replace("``", "`")
    return f"{head}## Example\n```python\n{example}\n```\n\n{tail}"


def main() -> int:
    """Writes, or compares; returns the exit status."""
    wanted = {ROOT / "README.md": readme(), **pages()}
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    if "--check" not in sys.argv:
        for path in stale:
            path.write_text(wanted[path])
        return 0
    for path in stale:
        sys.stderr.write(f"{path.relative_to(ROOT)} is stale: run `make docs`\n")
    return len(stale)


if __name__ == "__main__":
    sys.exit(main())
