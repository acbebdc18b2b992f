"""A page that dreams, as a folder for any static server: its own files, the graphs of a world, the runtime that
computes them, start clips with their pictures, and `site.json`, which says what differs between worlds.
"""

from __future__ import annotations

import gzip
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vqvideo.export import runtime
from vqvideo.export.page import page_files, to_json
from vqvideo.export.site_starts import Start
from vqvideo.export.writing import Weights, export_world
from vqvideo.models.imagination import Imaginer
from vqvideo.storage import files

GRAPHS = ("step", "decoder")


class Written(NamedTuple):
    """Bytes of a site."""

    loaded: int
    """What a visitor fetches before the first dream."""
    runtime: int
    """Of these, the runtime's."""
    all: int


def write_site(
    out: Path,
    world: Imaginer,
    fields: Mapping[str, Any],
    starts: list[Start],
    weights: Weights,
    runtime_files: Mapping[str, bytes],
) -> Written:
    """Writes the folder, complete or not at all.

    Args:
        out: a new folder.
        world: the model, on the CPU in single precision.
        fields: as `page.world_fields` gives them.
        starts: as `site_starts.starts` gives them.
        weights: how those of the graphs are kept.
        runtime_files: as `runtime.runtime` gives them.

    Raises:
        InputError: the folder exists, or the world cannot be exported.
    """
    info, graphs = _graphs(world, weights)
    loaded = {**graphs, "ort.wasm": runtime_files[runtime.WASM]}
    # Few static servers pack what they send, and none needs to: the page unpacks.
    packed = {f"{name}.gz": gzip.compress(data, 9, mtime=0) for name, data in loaded.items()}
    facts = {name: _facts(data, f"{name}.gz", packed) for name, data in loaded.items()}
    site = {**fields, "engine": "worker", "starts": [s.record for s in starts], "files": facts, "model": info}
    contents = {**page_files(), "site.json": to_json(site), "ort.js": runtime_files[runtime.MODULE], **packed}
    pictures = {name: data for start in starts for name, data in start.files.items()}
    files.make_folder(out.absolute().parent)
    everything = {**contents, **pictures, **runtime.licences()}
    files.commit_folder(out, everything, {"kind": "vqvideo-site", "weights": weights})
    size = sum(map(len, contents.values()))
    return Written(size, len(packed["ort.wasm.gz"]) + len(contents["ort.js"]), sum(map(len, everything.values())))


def _facts(data: bytes, stored: str, packed: Mapping[str, bytes]) -> dict[str, Any]:
    sha256 = hashlib.sha256(data).hexdigest()
    return {"stored": stored, "size": len(packed[stored]), "bytes": len(data), "sha256": sha256}


def _graphs(world: Imaginer, weights: Weights) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What the page must know of the graphs, and the graphs by file name."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "world"
        info = export_world(world, folder, weights=weights).info
        graphs = {f"{name}.onnx": (folder / f"{name}.onnx").read_bytes() for name in GRAPHS}
    kept = ("stride", "noise", "can_guide", "fingerprint")
    return {name: info[name] for name in kept} | {"graphs": {name: info["graphs"][name] for name in GRAPHS}}, graphs
