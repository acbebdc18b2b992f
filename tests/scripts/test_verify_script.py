"""`scripts/verify.py` as a user meets it: what it prints, how it ends, and that its help answers at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from processes import SCRIPTS, run, script
from stores import flip, make_store
from tiny_models import tiny_world

sys.path.insert(0, str(SCRIPTS))

from vqvideo import cli
from vqvideo.data.store import Store
from vqvideo.scripts import verify


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The code with which the command ends."""
    monkeypatch.setattr(sys, "argv", ["verify.py", *map(str, arguments)])
    try:
        cli.run(verify.main)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_damage_is_printed_with_what_to_do_and_ends_with_code_1(tmp_path: Path) -> None:
    make_store(tmp_path / "data", (8, 8))
    tiny_world().save_pretrained(tmp_path / "world")
    flip(tmp_path / "data" / "episodes" / "000001.safetensors", -1)
    run = script("verify", "data", "world", "--json", "found.json", cwd=tmp_path)
    assert (run.code, run.err) == (1, "")
    lines = run.out.splitlines()
    assert lines[0] == "DAMAGED   store          data  (2 episodes, 18 frames)"
    assert lines[1].startswith("          episodes/000001.safetensors: sha256 is ")
    assert lines[1].endswith("... was written: damaged (episode 1, seed 1)")
    assert lines[2].startswith("          -> restore it from a copy, no command records episode 1 again")
    assert lines[3].startswith("ok        world          world  (")
    assert lines[-1] == "2 things checked, 1 damaged, 0 notes"
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["checked"], found["damaged"], found["notes"]) == (2, 1, 0)
    (damage,) = found["things"][0]["damage"]
    assert damage["where"] == "episodes/000001.safetensors"
    assert len(damage["what"].split()[2].rstrip(",")) == 64


def test_intact_things_end_with_code_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "data", (8, 8))
    (tmp_path / "data" / "episodes" / "000002.safetensors").write_bytes(b"interrupted")
    assert ended(monkeypatch, tmp_path, "--deep") == 0
    shown = capsys.readouterr()
    assert "note: episodes/000002.safetensors: no line names it" in shown.out
    assert shown.out.endswith("\n1 thing checked, 0 damaged, 1 note\n")
    assert shown.err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder; expected a store (meta.json, manifest.jsonl, episodes/), a model"),
        (["."], "nothing of vqvideo's is in it; expected a store"),
        ([], "no folder to check: expected a store"),
    ],
)
def test_a_wrong_folder_ends_with_code_2_and_says_what_was_expected(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ended(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_flag_ends_with_code_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert ended(monkeypatch, tmp_path, "--deeper") == 2


def test_repair_sets_aside_and_ends_with_code_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "data", (8, 8, 8))
    flip(tmp_path / "data" / "episodes" / "000001.safetensors", -1)
    assert ended(monkeypatch, tmp_path) == 1
    assert ended(monkeypatch, tmp_path, "--repair") == 0
    assert "note: repaired: 1 line(s) left out, episode(s) 1" in capsys.readouterr().out
    assert [entry.index for entry in Store.open(tmp_path / "data").entries] == [0, 2]
    assert ended(monkeypatch, tmp_path) == 0


def test_help_answers_without_torch(tmp_path: Path) -> None:
    code = (
        "import runpy, sys\nsys.argv = ['verify.py', '--help']\n"
        f"try: runpy.run_path({str(SCRIPTS / 'verify.py')!r}, run_name='__main__')\n"
        "except SystemExit: pass\nprint(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    shown = run(sys.executable, "-c", code, cwd=tmp_path)
    assert shown.out.endswith("[]\n"), shown.err
    for word in ("--deep", "--repair", "--json", "FOLDER [FOLDER ...]", "Ends with code 0"):
        assert word in shown.out
