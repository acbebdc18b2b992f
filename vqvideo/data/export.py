"""Writes episodes out in the formats of other tools: a folder appears complete under its name, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vqvideo.data.episode import CHUNK, EpisodeReader
from vqvideo.data.export_config import ExportConfig
from vqvideo.data.exporting import Outgoing, exporter_class
from vqvideo.data.index import EpisodeEntry, StoreMeta
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.storage import files
from vqvideo.storage.files import AnyPath


def export_store(options: ExportConfig) -> Path:
    """Writes the episodes of a store, of which a few frames are in memory at a time. Returns the new folder.

    Raises:
        InputError: no such store, a damaged episode, a folder that is not empty, or what the format cannot hold.
    """
    store = Store.open(options.store)
    entries = store.entries if options.split == "all" else store.split(options.split)
    if not entries:
        raise InputError(f"{store.path}: no episode is in its split {options.split}")
    return export_episodes(outgoing(store, entries), store.meta, options.format, options.folder, options.lossless)


def export_episodes(
    episodes: Iterable[Outgoing], meta: StoreMeta, format: str, out: AnyPath, lossless: bool = False
) -> Path:
    """Writes episodes that come from anywhere.

    Args:
        episodes: one after the other.
        meta: what all have in common.
        format: a name in `vqvideo.data.exporting.FORMATS`.
        out: a new or an empty folder.
        lossless: whether frames must be kept to the bit.

    Raises:
        InputError: as `export_store`.
    """
    exporter, out = exporter_class(format), Path(out)
    with _complete(out) as folder, exporter(folder, meta, lossless) as writer:
        for episode in episodes:
            writer.add(episode)
        writer.finish()
    return out


def outgoing(store: Store, entries: Iterable[EpisodeEntry]) -> Iterator[Outgoing]:
    """Episodes of a store on their way out, with a bar that shows how far they are."""
    entries = tuple(entries)
    frames = sum(entry.length + 1 for entry in entries)
    with tqdm(total=frames, unit="frame", desc="exporting", leave=False, disable=None) as bar:
        for entry in entries:
            reader = store.reader(entry)
            yield Outgoing(_blocks(reader, bar), reader.steps, entry.seed, entry.split)


def _blocks(reader: EpisodeReader, bar: tqdm) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, reader.shape[0], CHUNK):
        frames = reader.frames(start, min(start + CHUNK, reader.shape[0]))
        yield frames
        bar.update(len(frames))


def check_free(out: Path) -> None:
    """Raises InputError unless a folder is new or empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: it exists and is not empty; choose another folder (--out) or remove it")


@contextmanager
def _complete(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, which takes its place when all went well."""
    check_free(out)
    files.make_folder(out.parent)
    files.clean_temporaries(out.parent, of=out.name)
    temporary = files.aside(out)
    with files.disk_errors(out):
        try:
            temporary.mkdir()
            yield temporary
            files.make_durable(temporary)
            files.swap_in(temporary, out)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
