"""What one thing says about another: caches about stores and tokenizers, worlds about their start clips."""

from __future__ import annotations

from pathlib import Path

from vqvideo.pretrained import STARTS
from vqvideo.verification.caches import FILE
from vqvideo.verification.checkpoints import advise
from vqvideo.verification.findings import Thing

_MADE_AGAIN = "it is only a cache: remove the folder, and the next training makes it again"


def compare(things: list[Thing]) -> None:
    """Adds to things what follows from others."""
    by_path = {thing.path: thing for thing in things}
    sound = [thing for thing in things if thing.kind != "codes" and not thing.damage]
    tokenizers = {thing.facts.tokenizer: thing for thing in sound if thing.facts.tokenizer}
    for thing in things:
        if thing.kind == "codes" and not thing.damage:
            _compare_cache(thing, by_path.get(thing.path.parent.parent), tokenizers)
        elif thing.kind == "shipped world":
            _compare_starts(thing, by_path.get(thing.path / STARTS))
        elif thing.kind == "world":
            _compare_tokenizer(thing, by_path.get(thing.path.parent / "vqvae" / "model"))
    for folder in {thing.path.parent for thing in things if thing.kind == "checkpoint"}:
        checkpoints = [t for t in things if t.kind == "checkpoint" and t.path.parent == folder]
        _compare_runs(folder, sorted(checkpoints, key=lambda thing: thing.path.name))


def _compare_cache(cache: Thing, store: Thing | None, tokenizers: dict[str, Thing]) -> None:
    unused = "nothing reads it any more: remove the folder when you like"
    if store is None or store.kind != "store":
        cache.note("", "the store that it belongs to is not beside it: a cache lies in STORE/codes")
    elif store.facts.store and store.facts.store != cache.facts.store:
        cache.note("", "the store has another content now: episodes were added or set aside", unused)
    fingerprint = cache.facts.tokenizer or ""
    made_by = tokenizers.get(fingerprint)
    if made_by is None:
        cache.note(
            "", f"its tokenizer {fingerprint[:16]} is not in the folders that were checked: its codes were not compared"
        )
        return
    size, highest = made_by.facts.codebook_size, cache.facts.highest_code
    if size is not None and highest is not None and highest >= size:
        cache.damaged(FILE, f"holds code {highest}, but its tokenizer has codes 0 .. {size - 1}", _MADE_AGAIN)


def _compare_starts(world: Thing, store: Thing | None) -> None:
    if store is None or world.damage or store.damage or world.facts.action_space is None:
        return
    for what in ("action_space", "frame_size"):
        wanted, found = getattr(world.facts, what), getattr(store.facts, what)
        if found is not None and found != wanted:
            complaint = f"the world's {what.replace('_', ' ')} is {wanted}, that of its start clips is {found}"
            world.damaged(STARTS, complaint, "copy the world again from where it came")


def _compare_tokenizer(world: Thing, tokenizer: Thing | None) -> None:
    if tokenizer and not tokenizer.damage and not world.damage:
        one, two = world.facts.tokenizer, tokenizer.facts.tokenizer
        if one and two and one != two:
            what = f"was trained on tokenizer {one[:16]}; {tokenizer.path} holds {two[:16]}"
            world.note("", what, "if the tokenizer was trained anew, train the prior again")


def _compare_runs(folder: Path, checkpoints: list[Thing]) -> None:
    """Gives the checkpoints of one run their remedies."""
    if folder.name == "checkpoints":
        advise(checkpoints)
    for thing in checkpoints:
        thing.advise("copy it again from where it came")
