"""`scripts/verify.py` as a user meets it: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from processes import script
from stores import flip, make_store
from tiny_models import tiny_world

from vqvideo.scripts import verify


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
    tmp_path: Path, called: Callable[..., tuple[int, str]]
) -> None:
    strange = tmp_path / os.fsdecode(b"a\x1b[2J\nb\xff")
    make_store(strange, (8, 8))
    code, shown = called(verify.main, tmp_path, "--deep")
    assert code == 0
    assert shown.endswith("a\\x1b[2J\\nb\\udcff\n1 checked, 0 damaged\n")
