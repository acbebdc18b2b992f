"""What an import is going to do: every recording is looked into before anything is written.

Which piece of which recording an episode is stands in `sources.jsonl` beside the manifest of the store; so the same
command goes on where it was stopped, and adds what is new.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vqvideo.data.collect import split_of
from vqvideo.data.config import ImportConfig
from vqvideo.data.formats import Facts, Reader, Recording
from vqvideo.data.index import MANIFEST, META, StoreMeta, read_manifest, read_meta
from vqvideo.data.spans import Span, spans
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace
from vqvideo.storage.files import parse_json
from vqvideo.storage.records import typed

SOURCES = "sources.jsonl"
_STEPS, _HELD_OUT_EVERY = 200, 6
_UNKNOWN_RATE = 25.0
"""Frames per second of what does not say how fast it is."""
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
    facts: Facts
    """Of the recording, with a rate in any case."""
    begin: int
    """The first frame that is not imported yet."""
    every: int
    """n, of which every n-th frame is kept."""

    @property
    def kept(self) -> int:
        """Frames to store, if all can be decoded."""
        return max(0, -(-(self.facts.frames - self.begin) // self.every))

    def split_of(self, index: int, held_out_every: int) -> str:
        """Of its episode with a number in the store: as its authors say, or by the number."""
        return self.facts.split or split_of(index, held_out_every)

    def spans(self, steps: int) -> list[Span]:
        """Which frames become which episode of at most so many steps."""
        return list(spans(self.begin, self.facts.frames, self.every, steps, self.recording.ends))


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
        return sum(len(work.spans(self.steps)) for work in self.work)


# ---------------------------------------------------------------- what to do


def planned(options: ImportConfig, format: str, reader: Reader) -> Plan:
    """Looks into every recording that is not imported yet."""
    out = options.folder
    recorded = _imported_before(out)
    done = sources(out)
    begun = {piece.name: piece for piece in done}
    found, broken = _opened(options, reader, begun)
    fps = options.fps or (_settings(recorded)["fps"] if recorded else None)
    facts, unknown = _with_rates({name: one.facts for name, one in found.items()}, options)
    rate, every, notes = _rates(facts, fps, recorded)
    work = tuple(
        Work(name, reader.size_of(name), one, facts[name], begun[name].after if name in begun else 0, every[name])
        for name, one in found.items()
    )
    steps, held_out_every, more = _cuts(work, options, recorded, whole=reader.episodes)
    settings = {"imported": format, "fit": options.fit, "fps": fps, "steps": steps, **_of_actions(options)}
    meta = StoreMeta(
        env_id=options.name,
        env_spec=json.dumps(settings),
        action_space=_space(reader.action_space, options, max(every.values(), default=1), recorded),
        frame_size=options.size,
        fps=rate,
        action_repeat=1,
        skip_first=0,
        policy="none",
        seed=0,
        held_out_every=held_out_every,
        versions=_versions(),
        missing=reader.missing if reader.action_space.size else (),
    )
    before = sum(piece.index is not None for piece in done)
    said = (*reader.notes, *unknown, *_of_recordings(facts), *notes, *more)
    return Plan(meta, steps, work, tuple(broken), before, said)


def _opened(options: ImportConfig, reader: Reader, begun: dict[str, Piece]) -> tuple[dict[str, Recording], list[str]]:
    """The recordings that are not imported to their end, and what is wrong with those that cannot be read."""
    found, broken = {}, []
    for name in tqdm(reader.names, desc="looking", unit="file", leave=False):
        if name in begun and begun[name].bytes != reader.size_of(name):
            raise InputError(
                f"{name} had {begun[name].bytes} bytes when it was imported into {options.folder}, and has "
                f"{reader.size_of(name)} now: import what has changed into another folder"
            )
        if name not in begun or begun[name].index is not None:
            try:
                found[name] = reader.open(name)
            except InputError as error:
                broken.append(str(error))
    return found, broken


def _of_actions(options: ImportConfig) -> dict[str, Any]:
    """Settings of what has actions that are not at their defaults: stores of films stay as they were."""
    names = ("aggregate", "action_leads", "align", "columns", "cameras", "source_size")
    default = ImportConfig(options.source)
    chosen = {name: getattr(options, name) for name in names if getattr(options, name) != getattr(default, name)}
    return json.loads(json.dumps(chosen))


def _space(found: ActionSpace, options: ImportConfig, every: int, recorded: StoreMeta | None) -> ActionSpace:
    """The space of the actions of the store: the recorded one where it holds what was found."""
    space = found
    if every > 1 and options.aggregate != "last" and found.size:
        if found.limits.whole.any():
            raise InputError(
                f"--aggregate {options.aggregate}: the actions are whole numbers ({found}), which have no mean and no "
                "sum: --aggregate last"
            )
        space = _widened(found, every) if options.aggregate == "sum" else found
    if recorded is None or recorded.action_space.size != space.size or not _holds(recorded.action_space, space):
        return space
    return recorded.action_space


def _widened(space: ActionSpace, times: int) -> ActionSpace:
    from gymnasium import spaces

    low, high = (np.array([getattr(column, end) for column in space.columns]) * times for end in ("low", "high"))
    return ActionSpace.from_gymnasium(
        spaces.Box(np.minimum(low, low / times), np.maximum(high, high / times), dtype=float)
    )


def _holds(space: ActionSpace, other: ActionSpace) -> bool:
    """Whether all actions of another space are actions of this one."""
    pairs = zip(space.columns, other.columns, strict=True)
    return all(
        one.low <= two.low and two.high <= one.high and (one.categories is None) == (two.categories is None)
        for one, two in pairs
    )


def _with_rates(facts: dict[str, Facts], options: ImportConfig) -> tuple[dict[str, Facts], list[str]]:
    """The facts with a rate each, and what to say of those that had none."""
    assumed = options.source_fps or _UNKNOWN_RATE
    unknown = [name for name, one in facts.items() if one.fps is None]
    note = f"nothing says how fast {len(unknown)} recordings are: {assumed:g} frames/s are assumed (--source-fps)"
    known = {name: replace(one, fps=one.fps or assumed) for name, one in facts.items()}
    return known, [note] if unknown and options.source_fps is None else []


def _imported_before(out: Path) -> StoreMeta | None:
    """What the store holds, if there is one; InputError if it was recorded."""
    if not (out / META).exists():
        return None
    meta, _ = read_meta(out)
    if meta.imported is None:
        raise InputError(f"{out} holds recorded episodes of {meta.env_id}: import into another folder, --out FOLDER")
    if "steps" not in _settings(meta):
        raise InputError(f"{out} holds episodes of arrays (write_store): import into another folder, --out FOLDER")
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


def _of_recordings(facts: dict[str, Facts]) -> list[str]:
    """What is to be said of recordings; what is the same for many of them only once."""
    said: dict[str, list[str]] = {}
    for name, one in facts.items():
        for note in one.notes:
            said.setdefault(note, []).append(name)
    return [f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: {note}" for note, names in said.items()]


def _rates(
    facts: dict[str, Facts], fps: float | None, recorded: StoreMeta | None
) -> tuple[float, dict[str, int], list[str]]:
    """Frames per second of the store, the n of every n-th frame of each recording, and what to say of it."""
    rates = {name: one.fps or _UNKNOWN_RATE for name, one in facts.items()}
    commonest = Counter(rates.values()).most_common(1)
    usual = commonest[0][0] if commonest else fps or _UNKNOWN_RATE
    wanted = fps or (recorded.fps if recorded else usual)
    every = {name: max(1, round(one / wanted)) for name, one in rates.items()}
    rate = recorded.fps if recorded else usual / max(1, round(usual / wanted))
    notes = [] if isclose(rate, wanted) else [f"the store has {rate:.4g} frames/s: --fps {wanted:g} cannot be met"]
    for name in facts:
        if not isclose(rates[name] / every[name], rate, rel_tol=0.01):
            kept = f"every {_nth(every[name])} is kept" if every[name] > 1 else "all are kept"
            notes.append(
                f"{name}: it has {rates[name]:.4g} frames/s, of which {kept}: in the store of {rate:.4g} it moves "
                f"{rate / (rates[name] / every[name]):.3g} times as fast"
            )
    return rate, every, notes


def _cuts(
    work: Sequence[Work], options: ImportConfig, recorded: StoreMeta | None, whole: bool
) -> tuple[int, int, list[str]]:
    """Longest episode, every how many are held out, and what to say of it. `whole`: recordings are episodes."""
    if recorded:
        steps = options.steps or _settings(recorded)["steps"]
        every = recorded.held_out_every if options.held_out_every is None else options.held_out_every
        return steps, every, []
    kept = [one.kept for one in work]
    usual = max([frames - 1 for frames in kept if frames > 1], default=_STEPS) if whole else _STEPS
    steps, notes = options.steps or usual, []
    if options.steps is None and options.held_out_every != 0 and sum(len(one.spans(steps)) for one in work) == 1:
        steps = max(1, max(kept) // 2 - 1)
        notes.append(f"the only recording is cut into episodes of {steps} steps, so that one can be held out")
    owners = [one for one in work for _ in one.spans(steps)]
    count, asked = len(owners), options.held_out_every
    every = min(_HELD_OUT_EVERY, max(2, count)) if asked is None else asked
    if count and not any(one.split_of(index, every) == "held_out" for index, one in enumerate(owners)):
        notes.append("no episode is held out, and trainings need one: lower --steps or --held-out-every, or add more")
    return steps, every, notes


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
        height, width = work.facts.size
        every = f", every {_nth(work.every)}" if work.every > 1 else ""
        rest = f", from frame {work.begin} on" if work.begin else ""
        yield (
            f"  {work.name}: {width} x {height} pixels, {work.facts.frames} frames at "
            f"{work.facts.fps:.4g}/s{every}{rest}: {len(work.spans(plan.steps))} episode(s)"
        )
    if len(plan.work) > SHOWN:
        yield f"  and {len(plan.work) - SHOWN} more"
    yield from (f"note: {note}" for note in plan.notes[:SHOWN])
    if options.skip_broken:
        yield from (f"note: left out: {complaint}" for complaint in plan.broken[:SHOWN])
    if plan.before and not plan.episodes:
        yield f"{options.folder} holds {plan.before} episodes already; nothing to import."
        return
    odd = [work for work in plan.work if not isclose(work.facts.size[1] * h, work.facts.size[0] * w)]
    how = {"crop": "the middle is kept", "pad": "with black at the sides", "stretch": "distorted"}[options.fit]
    shape = f" ({how}: --fit {options.fit})" if odd else ""
    yield (
        f"{options.folder}: {plan.episodes} episode(s) of at most {plan.steps} steps, {w} x {h} pixels{shape}, "
        f"{plan.meta.fps:.4g} frames/s{f', after {plan.before} that are there' if plan.before else ''}"
        + ("; nothing is imported (--dry-run)" if options.dry_run else "")
    )


def _nth(n: int) -> str:
    return f"{n}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10 if n % 100 not in (11, 12, 13) else 0, 'th') }"
