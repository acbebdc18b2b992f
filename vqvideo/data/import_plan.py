"""What an import is going to do: every recording is looked into before anything is written.

Which piece of which recording an episode is stands in `sources.jsonl` beside the manifest of the store; so the same
command goes on where it was stopped, and adds what is new.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import isclose
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vqvideo.data.collect import split_of
from vqvideo.data.config import ImportConfig
from vqvideo.data.formats import Facts, Reader, Recording
from vqvideo.data.index import MANIFEST, META, StoreMeta, read_manifest, read_meta
from vqvideo.errors import InputError
from vqvideo.storage.files import parse_json
from vqvideo.storage.records import typed

SOURCES = "sources.jsonl"
_STEPS, _HELD_OUT_EVERY = 200, 6
SHOWN = 20
"""Recordings that are listed one by one."""


@dataclass(frozen=True)
class Piece:
    """Where an episode came from: a line of `sources.jsonl`."""

    index: int | None
    """Number of the episode; None once the recording has been read to its end."""
    name: str
    """Of the recording."""
    bytes: int
    """Size of the recording, by which a changed one is noticed."""
    first: int
    """Number of the recording's frame that the episode begins with."""
    after: int
    """Number of the frame that the next episode begins with."""


def to_line(piece: Piece) -> bytes:
    """The line of a piece, with a newline."""
    return json.dumps(vars(piece)).encode() + b"\n"


@dataclass(frozen=True)
class Work:
    """A recording that is not imported to its end yet."""

    name: str
    bytes: int
    recording: Recording
    begin: int
    """The first frame that is not imported yet."""
    every: int
    """n, of which every n-th frame is kept."""

    @property
    def kept(self) -> int:
        """Frames to store, if all can be decoded."""
        return max(0, -(-(self.recording.facts.frames - self.begin) // self.every))


@dataclass(frozen=True)
class Plan:
    """What an import will do."""

    meta: StoreMeta
    steps: int
    """Longest episode."""
    work: tuple[Work, ...]
    broken: tuple[str, ...]
    """What is wrong with recordings that cannot be read."""
    before: int
    """Episodes that the store holds already."""
    notes: tuple[str, ...]
    """What a user should know."""

    @property
    def episodes(self) -> int:
        """How many come."""
        return sum(_episodes(work.kept, self.steps) for work in self.work)


# ---------------------------------------------------------------- what to do


def planned(options: ImportConfig, reader: Reader) -> Plan:
    """Looks into every recording that is not imported yet."""
    out = options.folder
    recorded = _imported_before(out)
    done = sources(out)
    begun = {piece.name: piece for piece in done}
    found, broken = {}, []
    for name in tqdm(reader.names, desc="looking", unit="file", leave=False):
        if name in begun and begun[name].bytes != reader.size_of(name):
            raise InputError(
                f"{name} had {begun[name].bytes} bytes when it was imported into {out}, and has {reader.size_of(name)} "
                "now: import what has changed into another folder"
            )
        if name not in begun or begun[name].index is not None:
            try:
                found[name] = reader.open(name)
            except InputError as error:
                broken.append(str(error))
    fps = options.fps or (_settings(recorded)["fps"] if recorded else None)
    rate, every, notes = _rates({name: one.facts for name, one in found.items()}, fps, recorded)
    if reader.action_space.size and any(n > 1 for n in every.values()):
        raise InputError(f"--fps {fps}: no frame can be left out of recordings with actions between frames")
    work = tuple(
        Work(name, reader.size_of(name), one, begun[name].after if name in begun else 0, every[name])
        for name, one in found.items()
    )
    steps, held_out_every, more = _cuts([one.kept for one in work], options, recorded)
    settings = {"imported": options.format, "fit": options.fit, "fps": fps, "steps": steps}
    meta = StoreMeta(
        env_id=options.name,
        env_spec=json.dumps(settings),
        action_space=reader.action_space,
        frame_size=options.size,
        fps=rate,
        action_repeat=1,
        skip_first=0,
        policy="none",
        seed=0,
        held_out_every=held_out_every,
        versions=_versions(),
    )
    before = sum(piece.index is not None for piece in done)
    return Plan(meta, steps, work, tuple(broken), before, (*notes, *more))


def _imported_before(out: Path) -> StoreMeta | None:
    """What the store holds, if there is one; InputError if it was recorded."""
    if not (out / META).exists():
        return None
    meta, _ = read_meta(out)
    if meta.imported is None:
        raise InputError(f"{out} holds recorded episodes of {meta.env_id}: import into another folder, --out FOLDER")
    return meta


def sources(store: Path) -> list[Piece]:
    """Where the episodes of an imported store came from, in the order of the import; empty for another store."""
    path = store / SOURCES
    if not path.exists():
        return []
    # The last line may be torn; then its episode was not written either.
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    pieces = [typed(Piece, parse_json(line, str(path)), str(path)) for line in lines]
    recorded = {entry.index for entry in read_manifest(store / MANIFEST)[0]}
    # A line is written before its episode.
    return [piece for piece in pieces if piece.index is None or piece.index in recorded]


def _rates(
    facts: dict[str, Facts], fps: float | None, recorded: StoreMeta | None
) -> tuple[float, dict[str, int], list[str]]:
    """Frames per second of the store, the n of every n-th frame of each recording, and what to say of it."""
    commonest = Counter(one.fps for one in facts.values()).most_common(1)
    usual = commonest[0][0] if commonest else fps or 25.0
    wanted = fps or (recorded.fps if recorded else usual)
    every = {name: max(1, round(one.fps / wanted)) for name, one in facts.items()}
    rate = recorded.fps if recorded else usual / max(1, round(usual / wanted))
    notes = [] if isclose(rate, wanted) else [f"the store has {rate:.4g} frames/s: --fps {wanted:g} cannot be met"]
    for name, one in facts.items():
        notes += [f"{name}: {note}" for note in one.notes]
        if not isclose(one.fps / every[name], rate, rel_tol=0.01):
            kept = f"every {_nth(every[name])} is kept" if every[name] > 1 else "all are kept"
            notes.append(
                f"{name}: it has {one.fps:.4g} frames/s, of which {kept}: in the store of {rate:.4g} it moves "
                f"{rate / (one.fps / every[name]):.3g} times as fast"
            )
    return rate, every, notes


def _cuts(kept: list[int], options: ImportConfig, recorded: StoreMeta | None) -> tuple[int, int, list[str]]:
    """Longest episode, every how many are held out, and what to say of it."""
    if recorded:
        steps = options.steps or _settings(recorded)["steps"]
        every = recorded.held_out_every if options.held_out_every is None else options.held_out_every
        return steps, every, []
    steps, notes = options.steps or _STEPS, []
    if options.steps is None and options.held_out_every != 0 and sum(_episodes(n, steps) for n in kept) == 1:
        steps = max(1, max(kept) // 2 - 1)
        notes.append(f"the only recording is cut into episodes of {steps} steps, so that one can be held out")
    count = sum(_episodes(n, steps) for n in kept)
    asked = options.held_out_every
    every = min(_HELD_OUT_EVERY, max(2, count)) if asked is None else asked
    if count and not any(split_of(index, every) == "held_out" for index in range(count)):
        notes.append("no episode is held out, and trainings need one: lower --steps or --held-out-every, or add more")
    return steps, every, notes


def _episodes(frames: int, steps: int) -> int:
    """How many episodes some frames give: each has `steps` + 1 of them, the last one what is left, at least two."""
    return frames // (steps + 1) + (frames % (steps + 1) >= 2)


def _settings(meta: StoreMeta) -> dict[str, Any]:
    """With which a store was imported."""
    return json.loads(meta.env_spec or "{}")


def _versions() -> dict[str, str]:
    """Of the packages that decode: pixels are only reproducible with the same ones."""
    versions = {}
    for name in ("vqvideo", "av", "pillow", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


# ---------------------------------------------------------------- what is said of it


def told(options: ImportConfig, plan: Plan) -> Iterator[str]:
    h, w = options.size
    for work in plan.work[:SHOWN]:
        height, width = work.recording.facts.size
        every = f", every {_nth(work.every)}" if work.every > 1 else ""
        rest = f", from frame {work.begin} on" if work.begin else ""
        yield (
            f"  {work.name}: {width} x {height} pixels, {work.recording.facts.frames} frames at "
            f"{work.recording.facts.fps:.4g}/s{every}{rest}: {_episodes(work.kept, plan.steps)} episode(s)"
        )
    if len(plan.work) > SHOWN:
        yield f"  and {len(plan.work) - SHOWN} more"
    yield from (f"note: {note}" for note in plan.notes[:SHOWN])
    if options.skip_broken:
        yield from (f"note: left out: {complaint}" for complaint in plan.broken[:SHOWN])
    if plan.before and not plan.episodes:
        yield f"{options.folder} holds {plan.before} episodes already; nothing to import."
        return
    odd = [
        work for work in plan.work if not isclose(work.recording.facts.size[1] * h, work.recording.facts.size[0] * w)
    ]
    how = {"crop": "the middle is kept", "pad": "with black at the sides", "stretch": "distorted"}[options.fit]
    shape = f" ({how}: --fit {options.fit})" if odd else ""
    yield (
        f"{options.folder}: {plan.episodes} episode(s) of at most {plan.steps} steps, {w} x {h} pixels{shape}, "
        f"{plan.meta.fps:.4g} frames/s{f', after {plan.before} that are there' if plan.before else ''}"
        + ("; nothing is written (--dry-run)" if options.dry_run else "")
    )


def _nth(n: int) -> str:
    return f"{n}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10 if n % 100 not in (11, 12, 13) else 0, 'th') }"
