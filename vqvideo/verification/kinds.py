"""What a folder is, told from its content. Nothing here trusts the content; files are opened only if they are regular.

Each kind is known by more than one of its files, so that it is still recognised when one of them is lost.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vqvideo.data.index import SPLITS
from vqvideo.errors import InputError
from vqvideo.storage import files

REPORTS = frozenset(
    ("evaluation.json", "fidelity.json", "figures.json", "results.json", "rate_distortion.json", "benchmark.json")
)
"""Figures that the scripts leave."""
MAX_MANIFEST = 2**20
"""Bytes of a `manifest.json`; ours have a few thousand."""
STEP = re.compile(r"step-\d{8}")
EPISODE = re.compile(r"\d{6,9}\.safetensors")

_CACHE = re.compile(rf"[0-9a-f]{{16}}-[0-9a-f]{{8}}-({'|'.join(SPLITS)})-\d+x\d+-v\d+")
_PEEK = 2**16
"""Bytes that are looked at to recognise a file."""


class Listing(NamedTuple):
    """The names in a folder."""

    files: dict[str, int]
    """Regular files, with their sizes."""
    folders: set[str]
    """Real folders."""
    others: set[str]
    """Links, pipes, sockets, devices: never opened and never followed."""

    def __contains__(self, name: object) -> bool:
        """Whether there is anything of that name, whatever it is."""
        return name in self.files or name in self.folders or name in self.others


def list_folder(path: Path) -> Listing:
    """The names in a folder, without opening any of them. OSError if it cannot be listed."""
    listing = Listing({}, set(), set())
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                listing.folders.add(entry.name)
            elif entry.is_file(follow_symlinks=False):
                listing.files[entry.name] = entry.stat(follow_symlinks=False).st_size
            else:
                listing.others.add(entry.name)
    return listing


def kinds_of(path: Path, names: Listing) -> list[str]:
    """What a folder is: at most one of the kinds that have a manifest, and what stands beside them."""
    found = [kind for kind, fits in _WHOLE.items() if fits(path, names)][:1]
    if not found and _is_stage(path, names):
        found.append("training")
    if "rounds.json" in names and b'"rounds"' in _peek(path / "rounds.json"):
        found.append("rounds")
    return found


def _is_store(path: Path, names: Listing) -> bool:
    if "manifest.jsonl" in names or ("meta.json" in names and "episodes" in names):
        return True
    if "episodes" in names.folders:
        with suppress(OSError):
            return any(EPISODE.fullmatch(name) for name in os.listdir(path / "episodes"))
    return b'"action_space"' in _peek(path / "meta.json") and b'"digest"' in _peek(path / "meta.json")


def _is_checkpoint(path: Path, names: Listing) -> bool:
    own = "optimizer.safetensors" in names or "average.safetensors" in names
    named = STEP.fullmatch(path.name) and ("manifest.json" in names or path.parent.name == "checkpoints")
    return bool(own or named or {"step", "settings"} <= _info(path, names))


def _is_cache(path: Path, names: Listing) -> bool:
    named = _CACHE.fullmatch(path.name)
    return bool("codes.safetensors" in names or named or {"tokenizer", "store", "split"} <= _info(path, names))


def _is_model(path: Path, names: Listing) -> bool:
    if b'"vqvideo-' in _peek(path / "config.json") or "kind" in _info(path, names):
        return True
    if "manifest.json" not in names:
        return False
    return "model.safetensors" in names or ("config.json" in names and _is_folder(path, names))


def _is_folder(path: Path, names: Listing) -> bool:
    return "manifest.json" in names and b"vqvideo-folder" in _peek(path / "manifest.json")


_WHOLE = {
    "store": _is_store,
    "checkpoint": _is_checkpoint,
    "codes": _is_cache,
    "model": _is_model,
    "folder": _is_folder,
}


def _is_stage(path: Path, names: Listing) -> bool:
    """Two of the files of a stage, and content as vqvideo writes it: other projects' runs have such names too."""
    here = [name in names for name in ("metrics.jsonl", "config.yaml", "checkpoints", "media")]
    if sum(here) < 2 or not ("metrics.jsonl" in names or "checkpoints" in names):
        return False
    ours = b"\nvqvae:" in _peek(path / "config.yaml") or b'"split": ' in _peek(path / "metrics.jsonl")
    return ours or ("checkpoints" in names.folders and _has_steps(path / "checkpoints"))


def _has_steps(path: Path) -> bool:
    try:
        return any(STEP.fullmatch(name) for name in os.listdir(path))
    except OSError:
        return False


def _info(path: Path, names: Listing) -> set[str]:
    """What an intact manifest records besides the files, by name."""
    if names.files.get("manifest.json", MAX_MANIFEST + 1) <= MAX_MANIFEST:
        with suppress(InputError, OSError):
            return set(files.read_manifest(path).info)
    return set()


def _peek(path: Path) -> bytes:
    """The beginning of a regular file; nothing of anything else."""
    try:
        files.check_regular(path)
        with open(path, "rb") as file:
            return file.read(_PEEK)
    except (InputError, OSError):
        return b""
