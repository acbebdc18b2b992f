"""The page that plays a world, whatever dreams it: its own files, and what `site.json` tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from typing import Any

from vqvideo.models.imagination import Imaginer
from vqvideo.models.prior.config import Sampling

FORMAT_VERSION = 1


def page_files() -> dict[str, bytes]:
    """The page itself, by file name: HTML, CSS and JavaScript."""
    folder = resources.files("vqvideo.export.web")
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name.endswith((".html", ".css", ".js"))}


def world_fields(world: Imaginer, sampling: Sampling, controls: Mapping[str, Any]) -> dict[str, Any]:
    """What `site.json` says of a world, whatever engine dreams it."""
    spec = world.prior.spec
    return {
        "format": FORMAT_VERSION,
        "title": world.env.env_id,
        "env_id": world.env.env_id,
        "fps": world.env.fps,
        "stride": world.stride,
        "size": list(world.vqvae.frame_size),
        "rewards": spec.knows_rewards and not spec.stats.unrewarded,
        "ends": spec.knows_ends and not spec.only_frames,
        "guidance_ok": world.prior.can_guide,
        "sampling": {name: value for name, value in asdict(sampling).items() if name != "top_k"},
        "controls": dict(controls),
    }


def to_json(site: Mapping[str, Any]) -> bytes:
    """`site.json`."""
    return (json.dumps(site, allow_nan=False, separators=(",", ":")) + "\n").encode()
