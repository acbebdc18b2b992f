"""The page "when it does not work" quotes messages that there are, and names settings that there are."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / ".github" / "SUPPORT.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| symptom")]
QUOTES = [quote for row in ROWS for quote in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
OURS = [quote for quote in QUOTES if " " in quote and not re.search("command not found|mixed dtype", quote)]
COMMANDS = [quote for quote in re.findall(r"`([^`]+)`", PAGE) if re.match(r"--|python scripts/", quote)]
HOLE = "\0"


def text_of(node: ast.AST) -> str:
    """The text of a string, with a hole for each value that is put into it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else HOLE


@cache
def texts() -> str:
    """All texts of the sources, one after the other."""
    files = [path for room in ("vqvideo", "envs", "scripts") for path in sorted((ROOT / room).rglob("*.py"))]
    strings = [
        node
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]
    return "\n".join(re.sub(r"\s+", " ", text_of(node)) for node in strings)


@pytest.mark.parametrize("quote", OURS)
def test_every_message_that_the_page_quotes_is_one_of_ours(quote: str) -> None:
    parts = [re.escape(part.strip()) for part in quote.split("...") if part.strip(" ,;:.()")]
    assert parts
    assert re.search(r"[^\n]*".join(parts), texts()), f"no text of ours reads {quote!r}"


def test_every_option_that_the_page_names_is_a_setting() -> None:
    sources = "\n".join(path.read_text() for room in ("vqvideo", "scripts") for path in (ROOT / room).rglob("*.py"))
    options = {option.split(".")[-1] for command in COMMANDS for option in re.findall(r"--([a-z][a-z.-]+)", command)}
    assert len(options) >= 5
    missing = [option for option in options if not re.search(rf"\b{option.replace('-', '_')}\b", sources)]
    assert not missing


def test_every_row_has_a_symptom_a_cause_and_a_remedy() -> None:
    assert len(ROWS) >= 10
    assert all(len(row.strip("|").split(" | ")) == 3 for row in ROWS)
