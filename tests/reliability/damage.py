"""Damaged files: bits flipped, cut off, deleted. What a user calls refuses each with an error that names the file, or
gives what the intact file gave (as where a bit of a line's total reward has changed): nothing that was never written.

Two things are told by a warning instead: a run whose newest checkpoint is damaged goes on from the one before, and a
manifest of a store that lost its end, as an interrupted recording leaves it, gives the episodes that it still names.
"""

from __future__ import annotations

import hashlib
import io
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import NamedTuple

from stores import cached_codes
from tiny_models import tiny_experiment, tiny_store, tiny_vqvae

from reliability.outcome import Guarantee, Outcome
from vqvideo.data.config import SegmentConfig
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.experiment.config import vqvae_folder, world_folder
from vqvideo.experiment.prior import train_prior
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage.checkpoint import TrainingState, latest_training, load_training, training_checkpoints
from vqvideo.world import WorldModel

HEAD = 256
"""Bytes at the beginning of a file of which more are damaged than of the others."""


class Use(NamedTuple):
    """Reads a folder, as users do."""

    read: Callable[[], frozenset[str]]
    """Digests of the parts of what it gives."""
    instead: frozenset[str] = frozenset()
    """What it may give where a file is damaged, with a warning, and does not give otherwise."""


class Subject(NamedTuple):
    """A file that may be damaged, and what is done with the folder that it lies in."""

    folder: Path
    file: str
    uses: tuple[Use, ...]


class Damage(NamedTuple):
    """What became of a file."""

    kind: str
    """As the figures count it."""
    what: str
    """In words."""
    data: bytes | None
    """Its bytes now; None for a file that is gone."""


def damages(healthy: bytes, count: int, rng: random.Random) -> Iterator[Damage]:
    """Some `count` ways to damage a file."""
    yield Damage("deleted", "deleted", None)
    yield Damage("truncations", "without its last byte", healthy[:-1])
    cuts = max(3, count // 10)
    for size in [0, *(rng.randrange(len(healthy)) for _ in range(cuts))]:
        yield Damage("truncations", f"cut to {size} bytes", healthy[:size])
    for number in range(max(4, count - cuts - 3)):
        place, bit = rng.randrange(min(HEAD, len(healthy)) if number % 2 else len(healthy)), rng.randrange(8)
        flipped = bytes([healthy[place] ^ 1 << bit])
        yield Damage(
            "bit flips", f"bit {bit} of byte {place} flipped", healthy[:place] + flipped + healthy[place + 1 :]
        )


def tried(subjects: list[Subject], trials: int, seed: int) -> Outcome:
    """Damages each file about `trials` / files times."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    failures: list[str] = []
    for subject in subjects:
        healthy = (subject.folder / subject.file).read_bytes()
        given = [use.read() for use in subject.uses]
        for damage in damages(healthy, trials // len(subjects), rng):
            counts[damage.kind] += 1
            failures += _complaints(subject, damage, given)
    return Outcome(counts.total(), tuple(failures), {"files": len(subjects), **counts})


def _complaints(subject: Subject, damage: Damage, given: list[frozenset[str]]) -> Iterator[str]:
    """A line for each use that did not notice the damage, or reported it badly. The file is as before afterwards."""
    path, healthy = subject.folder / subject.file, subject.folder.parent / "healthy"
    path.rename(healthy)
    if damage.data is not None:
        path.write_bytes(damage.data)
    try:
        for use, expected in zip(subject.uses, given, strict=True):
            if complaint := _complaint(subject, use, expected):
                yield f"{path} {damage.what}: {complaint}"
    finally:
        healthy.replace(path)


def _complaint(subject: Subject, use: Use, expected: frozenset[str]) -> str:
    try:
        with warnings_of_ours() as warned:
            found = use.read()
    except InputError as error:
        # Where a line and its file disagree, nobody knows which of the two is right.
        named = subject.file in str(error) or subject.file == "manifest.jsonl"
        return (
            ""
            if named and str(subject.folder) in str(error) and not use.instead
            else f"an error that does not name the file, or is not needed: {error}"
        )
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if found == expected:
        return ""
    if not found <= expected | use.instead:
        return "was used"
    return "" if warned else "was replaced without a warning"


@contextmanager
def warnings_of_ours() -> Iterator[list[str]]:
    """The warnings that vqvideo logs."""
    warned: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warned.append(record.getMessage())  # type: ignore[method-assign]
    ours = logging.getLogger("vqvideo")
    ours.addHandler(handler)
    try:
        yield warned
    finally:
        ours.removeHandler(handler)


# ---------------------------------------------------------------- checkpoints and models


def damaged_models(work: Path, trials: int, seed: int) -> Outcome:
    """Damages every file of a checkpoint, a tokenizer and a world that were trained for a few steps."""
    cfg = tiny_experiment(work)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        store = tiny_store(work / "data")
        train_vqvae(cfg, store)
        train_prior(cfg, store)
    before, newest = training_checkpoints(cfg.folder / "vqvae" / "checkpoints")
    going_on = Use(partial(_resumed, newest.parent), instead=_state(load_training(before)))
    uses = {
        newest: (Use(lambda: _state(load_training(newest))), going_on),
        vqvae_folder(cfg): (Use(lambda: frozenset([VQVAE.from_pretrained(vqvae_folder(cfg)).fingerprint()])),),
        world_folder(cfg): (Use(lambda: frozenset([WorldModel.from_pretrained(world_folder(cfg)).fingerprint()])),),
    }
    files = {folder: sorted(p.name for p in folder.iterdir() if p.name != "README.md") for folder in uses}
    return tried([Subject(folder, name, uses[folder]) for folder in uses for name in files[folder]], trials, seed)


def _resumed(checkpoints: Path) -> frozenset[str]:
    state = latest_training(checkpoints)
    return _state(state) if state else frozenset()


def _state(state: TrainingState) -> frozenset[str]:
    digest = hashlib.sha256(repr(state.progress).encode())
    for tensors in (state.model, state.optimizer, state.average):
        for name, value in sorted(tensors.items()):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return frozenset([digest.hexdigest()])


# ---------------------------------------------------------------- stores and caches


def damaged_stores(work: Path, trials: int, seed: int) -> Outcome:
    """Damages every file of a store and of a cache of codes."""
    path = work / "store"
    store = tiny_store(path, episodes=4, steps=12)
    uses = (Use(partial(_episodes, path)),)
    subjects = [Subject(path, name, uses) for name in ("meta.json", "manifest.jsonl")]
    subjects += [Subject(path / "episodes", file.name, uses) for file in sorted((path / "episodes").iterdir())]
    vqvae = tiny_vqvae()
    with redirect_stderr(io.StringIO()):
        read = partial(_codes, vqvae, vqvae.fingerprint(), path)
        read()
        (cache,) = (store.path / "codes").iterdir()
        subjects += [Subject(cache, file.name, (Use(read),)) for file in sorted(cache.iterdir())]
        return tried(subjects, trials, seed)


def _episodes(path: Path) -> frozenset[str]:
    """The content of each episode, with the split that it is trained in."""
    store = Store.open(path)
    found = []
    for entry in store.entries:
        episode = store.episode(entry)
        digest = hashlib.sha256(f"{entry.index} {entry.split} {episode.seed} {store.meta.fps}".encode())
        for part in (episode.frames, episode.actions, episode.rewards, episode.terminated, episode.truncated):
            digest.update(part.tobytes())
        found.append(digest.hexdigest())
    return frozenset(found)


def _codes(vqvae: VQVAE, fingerprint: str, path: Path) -> frozenset[str]:
    """Of a cache, which is made again where it has no manifest."""
    shards = cached_codes(vqvae, fingerprint, Store.open(path), "train", SegmentConfig(3, 3))
    return frozenset(hashlib.sha256(b"".join(array.tobytes() for array in shard)).hexdigest() for shard in shards)


GUARANTEES = (
    Guarantee(
        "damaged-models",
        "A checkpoint or a model of which a single bit has changed is never used: the error names the file, and a run "
        "that resumes falls back to the checkpoint before with a warning.",
        damaged_models,
        fast=330,
        long=6600,
    ),
    Guarantee(
        "damaged-stores",
        "Of an episode, a store or a cache of codes of which a single bit has changed nothing is used that was not "
        "recorded: the error names the file; what an interrupted recording leaves is told by a warning.",
        damaged_stores,
        fast=240,
        long=4800,
    ),
)
