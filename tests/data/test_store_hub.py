"""Stores that go to the Hub and come back, with a Hub that is a folder."""

from __future__ import annotations

import fnmatch
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import exports
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import HfHubHTTPError

from vqvideo.data.config import ImportConfig
from vqvideo.data.export import export_store
from vqvideo.data.export_config import ExportConfig
from vqvideo.data.importing import import_data
from vqvideo.data.store import Store
from vqvideo.errors import InputError


class FakeHub:
    """Repositories in a folder, fetched as a cache of links."""

    def __init__(self, root: Path) -> None:
        self.root, self.made = root / "hub", {}

    def __call__(self, token: str | None = None) -> FakeHub:
        """As `HfApi` is made."""
        return self

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> str:
        assert (repo_type, exist_ok) == ("dataset", True)
        self.made[repo_id] = private
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)
        return f"https://hub/datasets/{repo_id}"

    def file_exists(self, repo_id: str, name: str, *, repo_type: str) -> bool:
        return (self.root / repo_id / name).exists()

    def upload_file(self, *, path_or_fileobj: bytes, path_in_repo: str, repo_id: str, repo_type: str) -> None:
        (self.root / repo_id / path_in_repo).write_bytes(path_or_fileobj)

    def upload_folder(
        self,
        *,
        repo_id: str,
        repo_type: str,
        folder_path: Path,
        allow_patterns: list[str],
        delete_patterns: str,
        commit_message: str,
    ) -> None:
        for path in sorted((self.root / repo_id).rglob("*")):
            if fnmatch.fnmatch(str(path.relative_to(self.root / repo_id)), delete_patterns):
                path.unlink()
        for path in sorted(folder_path.rglob("*")):
            name = str(path.relative_to(folder_path))
            if path.is_file() and any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (self.root / repo_id / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(path, self.root / repo_id / name)

    def snapshot_download(
        self, repo_id: str, *, repo_type: str, allow_patterns: tuple[str, ...] | list[str] = ("*",), **more: Any
    ) -> str:
        if not (self.root / repo_id).exists():
            raise _NoRepositoryError("404 Client Error.\nRepository Not Found")
        cache = self.root.parent / "cache" / repo_id
        for path in (self.root / repo_id).rglob("*"):
            name = path.relative_to(self.root / repo_id)
            if path.is_file() and any(fnmatch.fnmatch(str(name), pattern) for pattern in allow_patterns):
                (cache / name).parent.mkdir(parents=True, exist_ok=True)
                (cache / name).unlink(missing_ok=True)
                (cache / name).symlink_to(path)
        return str(cache)


class _NoRepositoryError(HfHubHTTPError):
    """Without the response that the real one is made of."""

    __module__ = "huggingface_hub.errors"

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    hub = FakeHub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.chdir(tmp_path)
    return hub


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return exports.make(tmp_path / "mine", size=(8, 8))


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


EPISODES = {f"episodes/{number:06d}.safetensors" for number in range(4)}


def test_a_store_comes_back_as_it_went(hub: FakeHub, store: Store) -> None:
    (store.path / "codes").mkdir()
    (store.path / "codes" / "codes.safetensors").write_text("large")
    (store.path / "episodes" / ".tmp-00-x.safetensors").write_text("half")
    assert store.push_to_hub("me/my_game", private=True) == "https://hub/datasets/me/my_game"
    assert hub.made == {"me/my_game": True}
    assert names(hub.root / "me" / "my_game") == {"README.md", "meta.json", "manifest.jsonl", *EPISODES}
    back = Store.from_hub("me/my_game")
    assert back.path == Path("data/my_game")
    assert back.digest == store.digest
    assert not any(path.is_symlink() for path in back.path.rglob("*"))


def test_the_card_states_the_facts_and_is_not_overwritten(hub: FakeHub, store: Store) -> None:
    store.push_to_hub("me/my_game")
    card = hub.root / "me" / "my_game" / "README.md"
    for fact in ("# MyGame-v3", "4 episodes (1 of them held out), 39 frames of 8 x 8 pixels at 10 frames/s", "Box("):
        assert fact in card.read_text()
    assert 'Store.from_hub("me/my_game")' in card.read_text()
    card.write_text("edited")
    store.push_to_hub("me/my_game")
    assert card.read_text() == "edited"


def test_episodes_of_an_older_push_do_not_stay(hub: FakeHub, store: Store) -> None:
    store.push_to_hub("me/my_game")
    left = hub.root / "me" / "my_game" / "episodes" / "000009.safetensors"
    left.write_text("older")
    store.push_to_hub("me/my_game")
    assert not left.exists()


def test_damage_on_the_way_leaves_no_store(hub: FakeHub, store: Store) -> None:
    store.push_to_hub("me/my_game")
    file = hub.root / "me" / "my_game" / "episodes" / "000002.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"000002.safetensors: sha256 is .*damaged"):
        Store.from_hub("me/my_game")
    assert list(Path("data").iterdir()) == []


def test_a_damaged_store_is_not_pushed(hub: FakeHub, store: Store) -> None:
    file = store.path / store.entries[1].file
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match="damaged"):
        store.push_to_hub("me/my_game")
    assert hub.made == {}


def test_what_is_not_there_or_in_the_way_is_said(hub: FakeHub, store: Store) -> None:
    with pytest.raises(InputError, match=r"^me/nothing: the Hub did not give it: 404 Client Error\. Are name"):
        Store.from_hub("me/nothing")
    with pytest.raises(InputError, match="expected a name such as your_name/car_racing"):
        Store.from_hub("nothing")
    with pytest.raises(InputError, match="is not empty"):
        Store.from_hub("me/my_game", store.path)
    assert not Path("data").exists()


def test_errors_of_ours_stay_what_they_are(hub: FakeHub, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **more: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(hub, "upload_folder", broken, raising=False)
    with pytest.raises(ZeroDivisionError):
        store.push_to_hub("me/my_game")


# ---------------------------------------------------------------- import_data.py hf://...


def test_a_store_on_the_hub_is_imported_as_it_is(
    hub: FakeHub, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.push_to_hub("me/my_game")
    options = ImportConfig(Path("hf://me/my_game"))
    assert import_data(replace(options, dry_run=True)) == Path("data/my_game")
    assert not Path("data").exists()
    assert Store.open(import_data(options)).digest == store.digest
    assert "data/my_game: 4 episodes, as they are in me/my_game" in capsys.readouterr().out


def test_a_data_set_on_the_hub_is_imported_by_what_it_is(hub: FakeHub, store: Store) -> None:
    pytest.importorskip("pyarrow")
    export_store(ExportConfig(store.path, "lerobot", hub.root / "me" / "arm", lossless=True))
    back = Store.open(import_data(ImportConfig(Path("hf://me/arm"), frame_size=8, held_out_every=3)))
    assert (back.path, back.meta.env_id, back.meta.imported) == (Path("data/arm"), "arm", "lerobot")
    assert [entry.sha256 for entry in back.entries] != []
    for mine, theirs in zip(store.entries, back.entries, strict=True):
        assert np.array_equal(back.episode(theirs).frames, store.episode(mine).frames)
    again = import_data(ImportConfig(Path("hf://me/arm"), frame_size=8, held_out_every=3))
    assert len(Store.open(again).entries) == len(store.entries), "nothing is imported twice"


def test_a_data_set_that_is_not_on_the_hub_is_said(hub: FakeHub) -> None:
    with pytest.raises(InputError, match=r"^me/nothing: the Hub did not give it"):
        import_data(ImportConfig(Path("hf://me/nothing")))
    with pytest.raises(InputError, match="expected a name such as"):
        import_data(ImportConfig(Path("hf://nothing")))
