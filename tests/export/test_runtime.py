"""The runtime of the page: what is not its known files is refused, and what can be done is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqvideo.errors import InputError
from vqvideo.export import runtime


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for programs, in the place of all others, and an empty cache."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "bin" / "npm"


def test_without_npm_it_is_said_how_to_do_without(npm: Path) -> None:
    with pytest.raises(InputError, match=r"no npm: install Node.js, or run `npm install onnxruntime-web@.*--runtime"):
        runtime.runtime()


def test_what_npm_says_is_passed_on_and_nothing_is_kept(npm: Path) -> None:
    npm.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(InputError, match=r"npm could not fetch onnxruntime-web@.*: no network\. Try again"):
        runtime.runtime()
    assert not runtime.cache().exists()


def test_another_version_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no ort.*mjs and no ort.*\.wasm; expected the unpacked npm package"):
        runtime.runtime(tmp_path)
    (tmp_path / "dist").mkdir()
    for name in runtime.FILES:
        (tmp_path / "dist" / name).write_bytes(b"another version")
    with pytest.raises(InputError, match="expected the file of onnxruntime-web@"):
        runtime.runtime(tmp_path)
