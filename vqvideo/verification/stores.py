"""Stores: every line, every episode, and what lies beside them."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import numpy as np

from vqvideo.data.episode import CHUNK, EpisodeReader
from vqvideo.data.index import EpisodeEntry, StoreMeta
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.storage.files import FileRecord
from vqvideo.verification.again import COPY, how_to_record, lost_for_good
from vqvideo.verification.findings import Thing, reason
from vqvideo.verification.kinds import EPISODE, list_folder
from vqvideo.verification.leftovers import living_writer
from vqvideo.verification.lines import MANIFEST, Lines, read_lines, read_meta, repeated
from vqvideo.verification.work import Work

META, EPISODES = "meta.json", "episodes"
DAMAGED = "damaged-"
"""Before the name of an episode that was set aside."""
_RESTORE_META = (
    "restore it from a copy; or record one episode with the same command into another --out, and copy its meta.json"
)
_RESTORE_LINES = "restore it from a copy before anything is recorded: recording removes the episodes that no line names"


def check_store(path: Path, work: Work) -> Thing:
    """Checks meta, lines and episodes; with `work.deep` every frame and action too."""
    thing = Thing("store", path)
    meta: StoreMeta | None = None
    digest, lines = "", None
    with thing.trying(META, _RESTORE_META):
        meta, digest = read_meta(path)
    if (path / EPISODES).is_symlink() or not (path / EPISODES).is_dir():
        thing.damaged(EPISODES, "expected a folder", "move the episodes there; links are not followed")
        return thing
    if meta is not None and not (path / MANIFEST).exists() and not _episode_files(path):
        thing.note("", "no episode was recorded yet")
        return thing
    with thing.trying(MANIFEST, _RESTORE_LINES):
        lines = read_lines(path)
    if lines is None:
        return thing
    if digest and any(entry.meta not in ("", digest) for entry in lines.entries):
        thing.damaged(META, f"is not the one that {MANIFEST} was written beside", _RESTORE_META)
        meta = None
    _check_lines(thing, lines, meta)
    _check_episodes(thing, lines, meta, work)
    _check_names(thing, lines, meta)
    if not thing.damage and lines.entries:
        _learn(thing)
    elif not thing.damage:
        thing.note("", "no episode was recorded yet")
    return thing


def _check_lines(thing: Thing, lines: Lines, meta: StoreMeta | None) -> None:
    again = meta is not None and not lost_for_good(thing.path, meta, lines.entries)
    remedy = (
        "--repair leaves the line out; the command that recorded the store then records its episode again"
        if again
        else f"{COPY}; without one, --repair leaves the line out, and its episode is lost"
    )
    for line in lines.lines:
        if line.problem:
            thing.damaged(f"{MANIFEST} line {line.number}", line.problem, remedy)
    for index in repeated(lines.entries):
        thing.damaged(MANIFEST, f"episode {index} is recorded twice", remedy)
    if lines.torn and not living_writer(thing.path):
        thing.note(MANIFEST, "the last line is torn: its recording was interrupted", "the next recording removes it")


def _check_episodes(thing: Thing, lines: Lines, meta: StoreMeta | None, work: Work) -> None:
    bad = []
    for entry in lines.entries:
        if problem := episode_problem(thing.path, entry, meta, work):
            thing.damaged(entry.file, f"{problem} (episode {entry.index}, seed {entry.seed})")
            bad.append(entry)
    if lines.entries:
        thing.about = f"{len(lines.entries)} episodes, {sum(entry.length + 1 for entry in lines.entries):,} frames"
    if bad and meta:
        thing.advise(_episode_remedy(thing.path, meta, lines, bad))


def _episode_remedy(path: Path, meta: StoreMeta, lines: Lines, bad: list[EpisodeEntry]) -> str:
    aside = f"`python scripts/verify.py {shlex.quote(str(path))} --repair` sets damaged episodes aside"
    if lost := lost_for_good(path, meta, bad):
        return f"{COPY}, no command records episode {', '.join(map(str, lost[:8]))} again; without one, {aside}"
    command = how_to_record(path, meta, lines.entries, max(entry.index for entry in lines.entries))
    return f"{aside}; `{command}` then records them again, bit for bit with the versions that {META} names"


def episode_problem(path: Path, entry: EpisodeEntry, meta: StoreMeta | None, work: Work) -> str:
    """What is wrong with an episode's file; empty if nothing is."""
    file = path / entry.file
    try:
        work.compare(file, FileRecord(entry.bytes, entry.sha256))
        reader = EpisodeReader(file)
        _compare_header(reader, entry, meta)
        reader.steps.validate(meta.action_space if meta else None)
        if work.deep:
            _decode(reader)
    except (InputError, OSError) as error:
        return reason(error, file)
    return ""


def _compare_header(reader: EpisodeReader, entry: EpisodeEntry, meta: StoreMeta | None) -> None:
    pairs: dict[str, tuple[object, object]] = {
        "steps": (reader.length, entry.length),
        "seed": (reader.seed, entry.seed),
    }
    if meta:
        pairs["frame size"] = (reader.shape[1:3], meta.frame_size)
        pairs["action columns"] = (reader.action_size, meta.action_space.size)
    pairs["end"] = (bool(reader.steps.terminated[-1]), entry.terminated)
    different = [f"{name} {found}, expected {wanted}" for name, (found, wanted) in pairs.items() if found != wanted]
    total = float(reader.steps.rewards.sum(dtype=np.float64))
    if not math.isclose(total, entry.total_reward, rel_tol=1e-6, abs_tol=1e-6):
        different.append(f"rewards of {total} in all, expected {entry.total_reward}")
    if different:
        raise InputError(f"{reader.path}: holds another episode than the store says: {'; '.join(different)}")


def _decode(reader: EpisodeReader) -> None:
    """Every chunk of frames, one after the other: a few bytes can declare more than the memory holds."""
    for start in range(0, reader.shape[0], CHUNK):
        reader.frames(start, min(start + CHUNK, reader.shape[0]))


def _check_names(thing: Thing, lines: Lines, meta: StoreMeta | None) -> None:
    """What lies in the folder of the episodes and is none, and which numbers are missing."""
    named = {Path(entry.file).name for entry in lines.entries}
    unnamed, aside = unnamed_episodes(thing.path, lines), []
    for name in sorted(list_folder(thing.path / EPISODES).files.keys() - named - set(unnamed)):
        if name.startswith(DAMAGED) and EPISODE.fullmatch(name.removeprefix(DAMAGED)):
            aside.append(int(name.removeprefix(DAMAGED).partition(".")[0]))
            thing.note(f"{EPISODES}/{name}", "was set aside as damaged", "nothing uses it: remove it when you like")
        elif not name.startswith(".tmp-"):
            thing.note(f"{EPISODES}/{name}", "is no episode: nothing reads it")
    _check_unnamed(thing, lines, unnamed)
    _note_gaps(thing, lines, meta, aside)


def unnamed_episodes(path: Path, lines: Lines) -> list[str]:
    """Names of the episode files that no line names."""
    named = {Path(entry.file).name for entry in lines.entries}
    return sorted(name for name in _episode_files(path) if name not in named)


def _check_unnamed(thing: Thing, lines: Lines, unnamed: list[str]) -> None:
    if len(unnamed) > 1 and not any(line.problem for line in lines.lines) and not living_writer(thing.path):
        # A recording that was interrupted leaves one such file, and the next one removes it.
        what = f"names {len(lines.entries)} episodes, but {len(unnamed)} more are in {EPISODES}: lines were lost"
        thing.damaged(MANIFEST, what, _RESTORE_LINES)
    elif not living_writer(thing.path):
        for name in unnamed:
            thing.note(f"{EPISODES}/{name}", "no line names it: its recording was interrupted, or its line was lost")


def _note_gaps(thing: Thing, lines: Lines, meta: StoreMeta | None, aside: list[int]) -> None:
    there = {entry.index for entry in lines.entries}
    last = max([*there, *aside], default=-1)
    missing = sorted(set(range(last + 1)) - there) if last < 10**6 else []
    if missing and meta and not living_writer(thing.path):
        shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        command = f"`{how_to_record(thing.path, meta, lines.entries, last)}` records what is missing"
        remedy = COPY if lost_for_good(thing.path, meta, lines.entries) else command
        thing.note("", f"no episode {shown} of 0 .. {last}", remedy)


def _episode_files(path: Path) -> list[str]:
    return [name for name in list_folder(path / EPISODES).files if EPISODE.fullmatch(name)]


def _learn(thing: Thing) -> None:
    """The last word is the library's own: what it refuses to open is damaged."""
    with thing.trying(MANIFEST):
        opened = Store.open(thing.path)
        thing.facts.store = opened.digest
        thing.facts.action_space = opened.meta.action_space
        thing.facts.frame_size = opened.meta.frame_size
