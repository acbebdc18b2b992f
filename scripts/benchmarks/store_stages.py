"""What is done with a large store, each in a process of its own, so that its memory is seen."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from vqvideo.data.exporting.films import Encoding, Film
from vqvideo.scripts.benchmarks.resident import peak_of_children, peak_resident_bytes

_SIZE = (64, 96)
_ENCODING = Encoding("libx264", "yuv420p", ".mp4", {"crf": "20", "preset": "veryfast"})
_CLIP = 9
_KEY_EVERY = 250
"""Of x264 by default, and so of most films."""


def write_film(path: Path, frames: int) -> None:
    """A film in which patterns of all scales move, the coarser the stronger as in pictures of the world, with noise."""
    film = Film(path, _SIZE, 30, _ENCODING, key_every=_KEY_EVERY)
    rng, (h, w) = np.random.default_rng(0), _SIZE
    wide = sum(np.kron(rng.normal(0, n, (h * 2 // n, w * 2 // n, 3)), np.ones((n, n, 1))) for n in (1, 2, 4, 8, 16, 32))
    for start in range(0, frames, 100):
        count = min(100, frames - start)
        moved = [np.roll(wide, ((start + n) // 2, start + n), (0, 1))[:h, :w] for n in range(count)]
        pixels = 128 + np.stack(moved) + rng.normal(0, 2, (count, h, w, 3))
        film.add(pixels.clip(0, 255).astype(np.uint8))
    film.close()


def in_new_process(stage: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What a stage finds, with its `peak_bytes`."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_with_peak, stage, *arguments).result()


def _with_peak(stage: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    found = stage(*arguments)
    return found | {"peak_bytes": max(peak_resident_bytes(), peak_of_children())}


def _timed(count: int, began: float, **more: Any) -> dict[str, Any]:
    seconds = time.perf_counter() - began
    return {"count": count, "seconds": seconds, "per_second": count / seconds, **more}


def import_films(films: Path, store: Path) -> dict[str, Any]:
    """Frames of films that become a store, with one process per core."""
    from vqvideo.data.config import ImportConfig
    from vqvideo.data.importing import import_data
    from vqvideo.data.store import Store

    began = time.perf_counter()
    with redirect_stdout(StringIO()):
        import_data(ImportConfig(films, out=store))
    found = _timed(0, began)
    entries = Store.open(store).entries
    frames = sum(entry.length + 1 for entry in entries)
    size = sum(entry.bytes for entry in entries)
    return found | {"count": frames, "per_second": frames / found["seconds"], "store_bytes": size}


def open_store(store: Path) -> dict[str, Any]:
    """The whole list of its episodes."""
    from vqvideo.data.store import Store

    began = time.perf_counter()
    return _timed(len(Store.open(store).entries), began)


def draw_clips(store: Path, draws: int) -> dict[str, Any]:
    """Random clips of its training episodes, none of which is kept."""
    from vqvideo.data.clips import Clips
    from vqvideo.data.store import Store

    clips = Clips(Store.open(store), "train", _CLIP, cache_gib=0)
    order = np.random.default_rng(0).integers(len(clips), size=2 * draws)
    for index in order[:draws]:
        clips[int(index)]
    read, began = _bytes_read(), time.perf_counter()
    for index in order[draws:]:
        clips[int(index)]
    found = _timed(draws, began)
    return found | {"read_bytes": _bytes_read() - read}


def _bytes_read() -> int:
    """That this process has read, from a disk or from what the system keeps of it."""
    path = Path("/proc/self/io")
    lines = dict(line.split(": ") for line in path.read_text().splitlines()) if path.exists() else {}
    return int(lines.get("rchar", 0))


def _cache(store: Path) -> Any:
    import torch

    from vqvideo.data.code_cache import CodeCache
    from vqvideo.data.config import SegmentConfig
    from vqvideo.data.store import Store
    from vqvideo.models.tokenizer import FactorisedConv, VQVAEConfig

    torch.manual_seed(0)
    tokenizer = VQVAEConfig(FactorisedConv(strides=(2, 8, 8), patch=8, widths=(32,))).build((64, 64)).eval()
    return CodeCache(tokenizer, "benchmark", Store.open(store), "train", SegmentConfig(every=13))


def encode(store: Path) -> dict[str, Any]:
    """The codes of its training episodes."""
    import torch

    cache = _cache(store)
    frames = sum(entry.length + 1 for entry in cache.store.split("train"))
    began = time.perf_counter()
    cache.encode_share(torch.device("cpu"))
    return _timed(frames, began)


def draw_codes(store: Path, draws: int) -> dict[str, Any]:
    """Random clips of codes, as a prior trains on."""
    from vqvideo.data.codes import CodeClips

    clips = CodeClips(_cache(store).read(), 5)
    order = np.random.default_rng(0).integers(len(clips), size=draws)
    began = time.perf_counter()
    for index in order:
        clips[int(index)]
    return _timed(draws, began)
