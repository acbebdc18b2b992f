"""Damaged files: bits flipped, parts zeroed, cut off or appended, files emptied, deleted, exchanged for another run's.

What a user calls must refuse each of them with an error that names the file, before anything of it is used. Two things
are told by a warning instead, since they are what an interrupted recording leaves: a manifest of a store that lost its
end, and files that no line of it names. And two are mended without a word, since nothing is lost: a model card may be
edited, and a cache without a manifest is made again. The newline at the end of a JSON file is no part of what it says.
"""

from __future__ import annotations

import io
import itertools
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
from stores import cached_codes, make_meta
from tiny_models import SIZE, tiny_episode, tiny_experiment, tiny_store, tiny_vqvae

from reliability.outcome import Guarantee, Outcome
from vqvideo.data.clips import Clips
from vqvideo.data.codes import CodeArrays
from vqvideo.data.config import SegmentConfig
from vqvideo.data.index import EpisodeEntry
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.experiment.config import Experiment, vqvae_folder, world_folder
from vqvideo.experiment.prior import train_prior
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage.checkpoint import latest_training, load_training, training_checkpoints
from vqvideo.storage.files import MANIFEST
from vqvideo.world import WorldModel

HEAD = 256
"""Bytes at the beginning of a file that are damaged one by one."""
ZEROED = 4096
"""Bytes of a block that a failing disk gives back as zeros."""


class Damage(NamedTuple):
    """What became of a file."""

    kind: str
    """As the figures count it."""
    what: str
    """In words."""
    data: bytes | None
    """Its bytes now; None for a file that is gone."""


class Subject(NamedTuple):
    """A file that may be damaged, and what is done with the folder that it lies in."""

    folder: Path
    file: str
    uses: tuple[Callable[[list[str]], bool], ...]
    """Each reads the folder, as users do. It gets the warnings so far, and says whether they tell of the damage."""
    others: tuple[Path, ...] = ()
    """Folders with another file of that name."""

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.folder / self.file


# ---------------------------------------------------------------- damages


def damages(healthy: bytes, others: list[bytes], count: int, rng: random.Random) -> Iterator[Damage]:
    """About `count` ways to damage a file, the single ones first. Those that change nothing are left out."""
    found = itertools.chain(
        _single(healthy, others),
        _flips(healthy, rng.sample(range(min(HEAD, len(healthy))), min(HEAD, len(healthy), count * 12 // 25)), rng),
        _flips(healthy, [rng.randrange(len(healthy)) for _ in range(count * 9 // 25 if healthy else 0)], rng),
        _zeroed(healthy, max(2, count // 25), rng),
        _cut(healthy, max(3, count * 2 // 25), rng),
    )
    return (damage for damage in found if damage.data is None or _content(damage.data) != _content(healthy))


def _content(data: bytes) -> bytes:
    return data.removesuffix(b"}\n") + b"}" if data.endswith(b"}\n") else data


def _single(healthy: bytes, others: list[bytes]) -> Iterator[Damage]:
    yield Damage("deleted or replaced", "deleted", None)
    yield Damage("deleted or replaced", "emptied", b"")
    yield Damage("truncations", "without its last byte", healthy[:-1])
    yield Damage("appended", "with a byte more", healthy + b"\0")
    for number, other in enumerate(others, 1):
        yield Damage("deleted or replaced", f"replaced by that of another run ({number})", other)


def _flips(healthy: bytes, places: list[int], rng: random.Random) -> Iterator[Damage]:
    for place in places:
        bit = rng.randrange(8)
        data = bytearray(healthy)
        data[place] ^= 1 << bit
        yield Damage("bit flips", f"bit {bit} of byte {place} flipped", bytes(data))


def _zeroed(healthy: bytes, count: int, rng: random.Random) -> Iterator[Damage]:
    for _ in range(count):
        first = rng.randrange(len(healthy)) if healthy else 0
        stop = min(len(healthy), first + ZEROED)
        yield Damage("zeroed", f"bytes {first}..{stop} zeroed", healthy[:first] + bytes(stop - first) + healthy[stop:])


def _cut(healthy: bytes, count: int, rng: random.Random) -> Iterator[Damage]:
    for _ in range(count):
        size = rng.randrange(len(healthy)) if healthy else 0
        yield Damage("truncations", f"cut to {size} bytes", healthy[:size])


def line_ends(text: bytes) -> list[Damage]:
    """A file of lines that lost whole lines at its end."""
    ends = [place + 1 for place, byte in enumerate(text[:-1]) if byte == ord("\n")]
    return [Damage("lines lost", f"cut after line {number}", text[:end]) for number, end in enumerate(ends, 1)]


# ---------------------------------------------------------------- what comes of them


@contextmanager
def warnings_of_ours() -> Iterator[list[str]]:
    """The warnings that vqvideo logs."""
    told: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    ours = logging.getLogger("vqvideo")
    ours.addHandler(handler)
    try:
        yield told
    finally:
        ours.removeHandler(handler)


def complaints(subject: Subject, damage: Damage) -> Iterator[str]:
    """A line for each use that did not notice the damage, or reported it badly. The file is as before afterwards."""
    healthy = subject.folder.parent / "healthy"
    subject.path.rename(healthy)
    if damage.data is not None:
        subject.path.write_bytes(damage.data)
    try:
        for use in subject.uses:
            complaint = _complaint(subject, damage, use)
            if complaint:
                yield f"{subject.path} {damage.what}: {complaint}"
    finally:
        healthy.replace(subject.path)


def _complaint(subject: Subject, damage: Damage, use: Callable[[list[str]], bool]) -> str:
    try:
        with warnings_of_ours() as told:
            return "" if use(told) else "was used without a word"
    except InputError as error:
        return "" if _is_named(str(error), subject, damage) else f"the error does not name the file: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _is_named(message: str, subject: Subject, damage: Damage) -> bool:
    if f"{subject.folder}" not in message:
        return False
    # A whole manifest of another run says truly what its own files were; those that are here differ.
    return subject.file in message or (subject.file == MANIFEST and "replaced" in damage.what)


def outcome(subjects: list[Subject], trials: int, seed: int) -> Outcome:
    """Damages each file `trials` / files times."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    failures: list[str] = []
    for subject in subjects:
        healthy = subject.path.read_bytes()
        others = [(folder / subject.file).read_bytes() for folder in subject.others]
        found = list(damages(healthy, others, trials // len(subjects), rng))
        if subject.file.endswith(".jsonl"):
            found += line_ends(healthy)
        for damage in found:
            counts[damage.kind] += 1
            failures += complaints(subject, damage)
    return Outcome(counts.total(), tuple(failures), {"files": float(len(subjects)), **counts})


# ---------------------------------------------------------------- checkpoints and models


def damaged_models(work: Path, trials: int, seed: int) -> Outcome:
    """Damages every file of a checkpoint, a tokenizer and a world that were trained for a few steps."""
    run, other = _trained(work, 0), _trained(work, 1)
    before, newest = training_checkpoints(run.folder / "vqvae" / "checkpoints")
    strange = training_checkpoints(other.folder / "vqvae" / "checkpoints")[-1]
    uses = (_loading(newest), _falling_back(newest, before))
    subjects = [Subject(newest, path.name, uses, (before, strange)) for path in sorted(newest.iterdir())]
    models = ((VQVAE, vqvae_folder), (WorldModel, world_folder))
    for kind, folder_of in models:
        folder = folder_of(run)
        names = sorted(path.name for path in folder.iterdir() if path.name != "README.md")
        subjects += [Subject(folder, name, (_opening(kind, folder),), (folder_of(other),)) for name in names]
    return outcome(subjects, trials, seed)


def _trained(work: Path, seed: int) -> Experiment:
    cfg = tiny_experiment(work / f"run-{seed}", seed=seed)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        store = tiny_store(work / f"store-{seed}")
        train_vqvae(cfg, store)
        train_prior(cfg, store)
    return cfg


def _loading(checkpoint: Path) -> Callable[[list[str]], bool]:
    def use(_: list[str]) -> bool:
        load_training(checkpoint)
        return False

    return use


def _falling_back(newest: Path, before: Path) -> Callable[[list[str]], bool]:
    wanted = load_training(before).progress["step"]

    def use(told: list[str]) -> bool:
        state = latest_training(newest.parent)
        if state is None or state.progress["step"] != wanted:
            raise AssertionError(f"resumed from {state and state.progress['step']}, expected {wanted}")
        if not any(str(newest) in warning for warning in told):
            raise AssertionError("fell back without a warning")
        return True

    return use


def _opening(kind: type[VQVAE] | type[WorldModel], folder: Path) -> Callable[[list[str]], bool]:
    def use(_: list[str]) -> bool:
        kind.from_pretrained(folder)
        return False

    return use


# ---------------------------------------------------------------- stores and caches


def damaged_stores(work: Path, trials: int, seed: int) -> Outcome:
    """Damages every file of a store and of a cache of codes; each clip of the store is read after it."""
    path, strange = work / "store", work / "strange"
    store, other = tiny_store(path, episodes=4, steps=12), _other_store(strange)
    vqvae = tiny_vqvae()
    entries = store.entries
    uses = (_verifying(path, entries), _reading_clips(path, entries))
    subjects = [Subject(path, name, uses, (strange,)) for name in ("meta.json", "manifest.jsonl")]
    episodes = path / "episodes"
    subjects += [Subject(episodes, file.name, uses, (strange / "episodes",)) for file in sorted(episodes.iterdir())]
    subjects += _cache(vqvae, store, other)
    return outcome(subjects, trials, seed)


def _other_store(path: Path) -> Store:
    """Of other episodes with the same names, recorded at another rate."""
    with StoreWriter.open(path, make_meta(env_id="TinyWorld", frame_size=(SIZE, SIZE), fps=20.0)) as writer:
        for index in range(4):
            writer.add(index, tiny_episode(12, 100 + index), "held_out" if index == 2 else "train")
    return Store.open(path)


def _verifying(path: Path, healthy: tuple[EpisodeEntry, ...]) -> Callable[[list[str]], bool]:
    def use(told: list[str]) -> bool:
        store = Store.open(path)
        store.verify()
        return _is_told(path, store, healthy, told)

    return use


def _reading_clips(path: Path, healthy: tuple[EpisodeEntry, ...]) -> Callable[[list[str]], bool]:
    def use(told: list[str]) -> bool:
        store = Store.open(path)
        for split in {entry.split for entry in store.entries}:
            clips = Clips(store, split, 5)
            for index in range(len(clips)):
                clips[index]
        return _is_told(path, store, healthy, told)

    return use


def _is_told(path: Path, store: Store, healthy: tuple[EpisodeEntry, ...], told: list[str]) -> bool:
    """Whether the manifest is named by a warning, and so is the first episode that is missing, if one is."""
    assert set(store.entries) <= set(healthy), "the store gives entries that were never written"
    missing = sorted(entry.file for entry in healthy if entry not in store.entries)
    warning = "\n".join(told)
    return str(path / "manifest.jsonl") in warning and all(name in warning for name in missing[:1])


def _cache(vqvae: VQVAE, store: Store, other: Store) -> list[Subject]:
    print_ = vqvae.fingerprint()

    def codes(of: Store) -> list[CodeArrays]:
        with redirect_stderr(io.StringIO()):
            return cached_codes(vqvae, print_, of, "train", SegmentConfig(3, 3))

    healthy = codes(store)
    codes(other)

    def use(_: list[str]) -> bool:
        found = codes(Store.open(store.path))
        # Without a manifest there is no cache: it is made again.
        made_again = (folder / MANIFEST).stat().st_mtime_ns > made
        return made_again and all(map(np.array_equal, found[0], healthy[0]))

    (folder,) = (store.path / "codes").iterdir()
    (strange,) = (other.path / "codes").iterdir()
    made = (folder / MANIFEST).stat().st_mtime_ns
    names = sorted(path.name for path in folder.iterdir())
    return [Subject(folder, name, (use,), (strange,)) for name in names]


GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        "damaged-models",
        "A checkpoint or a model of which a single bit has changed is never used: the error names the file, and a run "
        "that resumes falls back to the checkpoint before with a warning.",
        damaged_models,
        fast=660,
        long=6600,
    ),
    Guarantee(
        "damaged-stores",
        "An episode, a store or a cache of codes of which a single bit has changed is never trained on: the error "
        "names the file; what an interrupted recording leaves is told by a warning.",
        damaged_stores,
        fast=480,
        long=4800,
    ),
)
