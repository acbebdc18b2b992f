"""export_web.py: the folder is complete, its files are what site.json says, and what is wrong is said first."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_models import film_store, film_world, tiny_store, tiny_world

from vqvideo.export import runtime
from vqvideo.scripts import export_web

Called = Callable[..., tuple[int, str]]
WORDS = ("--world", "world", "--store", "data", "--length", "4", "--starts", "2")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "runtime", lambda _: dict.fromkeys(runtime.FILES, b"runtime"))
    return tmp_path


def test_a_page_holds_all_that_it_loads(home: Path, called: Called) -> None:
    tiny_world().save_pretrained("world")
    tiny_store(home / "data")
    code, said = called(export_web.main, *WORDS, "--temperature", "0.8")
    assert code == 0, said
    assert "2 start clips" in said
    site = json.loads((home / "site" / "site.json").read_text())
    assert site["sampling"] == {"temperature": 0.8, "top_p": 0.9, "guidance": 1.0}
    assert [column["categories"] for column in site["controls"]["columns"]] == [5]
    for name, facts in site["files"].items():
        data = gzip.decompress((home / "site" / facts["stored"]).read_bytes())
        assert (len(data), hashlib.sha256(data).hexdigest()) == (facts["bytes"], facts["sha256"]), name
    start = site["starts"][1]
    assert (np.shape(start["codes"]), np.shape(start["context_actions"])) == ((3, 2, 2), (2, 2, 1))
    assert (np.shape(start["actions"]), start["film_frames"]) == ((8, 1), 9)
    assert (home / "site" / start["thumbnail"]).is_file()
    assert (home / "site" / "ort-LICENSE").read_text().startswith("MIT License")


def test_a_world_of_films_has_no_keys_and_no_rewards(home: Path, called: Called) -> None:
    film_world().save_pretrained("world")
    film_store(home / "data")
    code, said = called(export_web.main, *WORDS, "--out", "films/page")
    assert code == 0, said
    site = json.loads((home / "films" / "page" / "site.json").read_text())
    assert (site["controls"]["columns"], site["rewards"], site["ends"]) == ([], False, False)
    assert np.shape(site["starts"][0]["context_actions"]) == (2, 2, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "data"), "data exists already: choose another folder (--out) or remove it"),
        (("--top-k", "5"), "--top-k 5: the page draws by temperature, top-p and guidance"),
        (("--length", "90"), "here with --context 3 and --length 90"),
        (("--starts", "0"), "--starts is 0, expected at least 1"),
        (("--world", "nothing"), "no world model in nothing"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(home: Path, called: Called, words: tuple[str, ...], said: str) -> None:
    tiny_world().save_pretrained("world")
    tiny_store(home / "data")
    code, shown = called(export_web.main, *WORDS, *words)
    assert code == 2
    assert said in shown
    assert "Traceback" not in shown
    assert {path.name for path in home.iterdir()} == {"world", "data"}


def test_without_a_runtime_nothing_is_computed(home: Path, called: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(home)
    code, shown = called(export_web.main, "--world", "carracing", "--runtime", home)
    assert (code, "expected the unpacked npm package onnxruntime-web@" in shown) == (2, True)
    assert not (home / "site").exists()


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_the_extra_that_is_missing_is_named(
    home: Path, called: Called, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    tiny_world().save_pretrained("world")
    tiny_store(home / "data")
    monkeypatch.setitem(sys.modules, missing, None)
    code, shown = called(export_web.main, *WORDS)
    assert (code, "pip install 'vqvideo[onnx]'" in shown) == (2, True)
    assert not (home / "site").exists()
