"""`scripts/verify.py` as a user meets it: what it prints, how it ends, and that its help answers at once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from processes import SCRIPTS, run, script
from stores import flip, make_store
from tiny_models import tiny_world

from vqvideo import cli
from vqvideo.scripts import verify


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["verify.py", *map(str, arguments)])
    try:
        cli.run(verify.main)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_damage_is_printed_and_ends_with_code_1(tmp_path: Path) -> None:
    make_store(tmp_path / "data", (8, 8))
    tiny_world().save_pretrained(tmp_path / "world")
    flip(tmp_path / "data" / "episodes" / "000001.safetensors", -1)
    ended = script("verify", "data", "world", "--json", "found.json", cwd=tmp_path)
    assert (ended.code, ended.err) == (1, "")
    store, complaint, world, summary = ended.out.splitlines()
    assert store == "DAMAGED   store        data"
    assert complaint.startswith("          data/episodes/000001.safetensors: sha256 is ")
    assert world == "ok        model        world"
    assert summary == "2 checked, 1 damaged"
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["checked"], found["damaged"]) == (2, 1)
    assert [(thing["path"], len(thing["damage"])) for thing in found["things"]] == [("data", 1), ("world", 0)]


def test_intact_things_end_with_code_0_and_names_cannot_steer_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = tmp_path / os.fsdecode(b"a\x1b[2J\nb\xff")
    make_store(strange, (8, 8))
    assert ended(monkeypatch, tmp_path, "--deep") == 0
    shown = capsys.readouterr()
    assert shown.out.endswith("a\\x1b[2J\\nb\\udcff\n1 checked, 0 damaged\n")
    assert shown.err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder; expected a store (meta.json, manifest.jsonl, episodes/), a model"),
        (["."], "nothing of vqvideo's is in it; expected a store"),
        ([], "no folder to check: expected a store"),
        ([".", "--deeper"], "--deeper"),
    ],
)
def test_bad_input_ends_with_code_2_and_says_what_was_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ended(monkeypatch, *arguments) == 2
    assert message in capfd.readouterr().err


def test_help_answers_without_torch(tmp_path: Path) -> None:
    code = (
        "import runpy, sys\nsys.argv = ['verify.py', '--help']\n"
        f"try: runpy.run_path({str(SCRIPTS / 'verify.py')!r}, run_name='__main__')\n"
        "except SystemExit: print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    shown = run(sys.executable, "-c", code, cwd=tmp_path)
    assert shown.out.endswith("[]\n"), shown.err
    assert all(word in shown.out for word in ("--deep", "--json", "FOLDER [FOLDER ...]", "Ends with code 0"))
