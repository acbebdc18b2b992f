"""Stores on the Hugging Face Hub, as data sets: the files of the store as they are, and a card that says what they are.

What lies beside them, such as caches of codes, stays at home. Digests are verified before anything leaves, and before
what has come counts as a store.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vqvideo.data.index import EPISODES, MANIFEST, META, EpisodeEntry, StoreMeta
from vqvideo.errors import InputError
from vqvideo.storage import files

FILES = [META, MANIFEST, f"{EPISODES}/[0-9]*.safetensors"]
"""Patterns of what belongs to a store."""
CARD = "README.md"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_PACKAGES = ("huggingface_hub", "httpx", "requests")
"""Whose errors are about the Hub, or the way there."""
_TEXT = """---
library_name: vqvideo
tags: [vqvideo, video, world-model{tags}]
---

# {name}

{episodes} episodes ({held_out} of them held out), {frames} frames of {w} x {h} pixels at {fps:g} frames/s, recorded or
imported with vqvideo.

| | |
|---|---|
| environment or source | {environment} |
| actions | {actions} |
| chosen by | {policy} |
| not known | {missing} |

```python
from vqvideo import Store

store = Store.from_hub("{repo}")  # into data/{folder}, every file checked against its digest
episode = store.episode(store.entries[0])
episode.frames, episode.actions, episode.rewards  # (T+1, h, w, 3) uint8, (T, a), (T,)
```
"""


def push(path: Path, meta: StoreMeta, entries: Sequence[EpisodeEntry], repo_id: str, private: bool, **hub: Any) -> str:
    """Uploads the store in a folder, which is known to be whole; the address of the repository. See
    `Store.push_to_hub`.
    """
    from huggingface_hub import HfApi

    _check_name(repo_id)
    with _hub_errors(repo_id, "it could not be uploaded"):
        api = HfApi(token=hub.pop("token", None))
        address = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        # One that is there may have been edited.
        if not api.file_exists(repo_id, CARD, repo_type="dataset"):
            text = card(meta, entries, repo_id).encode()
            api.upload_file(path_or_fileobj=text, path_in_repo=CARD, repo_id=repo_id, repo_type="dataset")
        api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=path,
            allow_patterns=FILES,
            # Episodes that the store does not have must not stay beside its manifest.
            delete_patterns=f"{EPISODES}/*",
            **{"commit_message": f"{len(entries)} episodes"} | hub,
        )
    return str(address)


@contextmanager
def pulled(repo_id: str, folder: Path, **hub: Any) -> Iterator[Path]:
    """The files of a repository in a temporary folder, which becomes `folder` if nothing is raised inside. See
    `Store.from_hub`.
    """
    _check_name(repo_id)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: it exists and is not empty; open it (Store.open) or choose another folder")
    arrived = snapshot(repo_id, allow_patterns=FILES, **hub)
    files.make_folder(folder.parent)
    temporary = files.aside(folder)
    try:
        with files.disk_errors(folder):
            # The Hub's cache is made of links, which a store refuses.
            shutil.copytree(arrived, temporary)
        yield temporary
        with files.disk_errors(folder):
            files.make_durable(temporary)
            files.swap_in(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def snapshot(repo_id: str, **hub: Any) -> Path:
    """The files of a repository in the cache of the Hub. InputError if they cannot be had."""
    from huggingface_hub import snapshot_download

    _check_name(repo_id)
    with _hub_errors(repo_id, "the Hub did not give it"):
        return Path(snapshot_download(repo_id, repo_type="dataset", **hub))


def default_folder(repo_id: str) -> Path:
    """Where a repository goes: data/<its name>."""
    return Path("data") / repo_id.rpartition("/")[2]


def card(meta: StoreMeta, entries: Sequence[EpisodeEntry], repo_id: str) -> str:
    """The text that the repository shows."""
    h, w = meta.frame_size
    return _TEXT.format(
        name=meta.env_id,
        tags=", reinforcement-learning" if meta.action_space.size else "",
        episodes=len(entries),
        held_out=sum(entry.split == "held_out" for entry in entries),
        frames=sum(entry.length + 1 for entry in entries),
        **{"h": h, "w": w, "fps": meta.fps, "repo": repo_id, "folder": default_folder(repo_id).name},
        environment=f"{meta.env_id} ({meta.imported})" if meta.imported else meta.env_id,
        actions=str(meta.action_space).replace("|", "\\|"),
        policy=meta.policy,
        missing=", ".join(meta.missing) or "nothing",
    )


def _check_name(repo_id: str) -> None:
    if not _REPOSITORY.fullmatch(repo_id):
        raise InputError(f"{repo_id!r:.100} is no repository: expected a name such as your_name/car_racing")


@contextmanager
def _hub_errors(repo_id: str, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Of several packages and versions: no common class, but for those of the system.
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _PACKAGES:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"{repo_id}: {what}: {reason}. Are name, network and token (hf auth login) right?") from error
