"""No test waits without a limit: what may never come would stop all tests that follow."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = sorted(Path(__file__).parent.rglob("*.py"))
WITH_TIMEOUT = ("subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output")
UNLIMITED = ("os.wait", "os.waitpid", "os.system", "mp.spawn")


def waits_for_ever(call: ast.Call) -> bool:
    """Whether a call waits for another process without saying how long."""
    name = ast.unparse(call.func)
    limited = any(keyword.arg == "timeout" for keyword in call.keywords)
    if name in WITH_TIMEOUT or name.endswith(".communicate"):
        return not limited
    if name in UNLIMITED:
        return "WNOHANG" not in ast.unparse(call)
    return name.endswith((".wait", ".join")) and not limited and not call.args


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_no_test_waits_for_a_process_without_a_limit(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert [f"line {call.lineno}: {ast.unparse(call)}" for call in calls if waits_for_ever(call)] == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("subprocess.run(['true'])", True),
        ("subprocess.run(['true'], timeout=5)", False),
        ("process.communicate()", True),
        ("process.wait()", True),
        ("thread.join(5)", False),
        ("', '.join(words)", False),
        ("os.waitpid(child, 0)", True),
        ("os.waitpid(child, os.WNOHANG)", False),
    ],
)
def test_a_wait_without_a_limit_is_found(code: str, found: bool) -> None:
    (call,) = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    assert waits_for_ever(call) == found
