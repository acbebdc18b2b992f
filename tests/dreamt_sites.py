"""A page of a tiny world, and what Python dreams by the same graphs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import film_store, film_world, tiny_store, tiny_world

from vqvideo.data.clips import Clips
from vqvideo.envs.keys import controls, to_json
from vqvideo.models.prior import Sampling
from vqvideo.world import WorldModel

CONTEXT = 3
LENGTH = 5


def site_world(films: bool = False) -> WorldModel:
    """What the page of `tiny_site` dreams: TinyWorld under five actions, or films without any."""
    return film_world() if films else tiny_world(action_dropout=0.1)


def tiny_site(out: Path, runtime_files: Mapping[str, bytes], films: bool = False) -> dict[str, Any]:
    """Writes the page of a tiny world; what `site.json` says."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from vqvideo.export.page import world_fields
    from vqvideo.export.site import write_site
    from vqvideo.export.site_starts import starts

    world, store = site_world(films), (film_store if films else tiny_store)(out.parent / "episodes")
    clips = Clips(store, "held_out", world.vqvae.clip_length(CONTEXT + LENGTH))
    keys = to_json(world.action_space, controls("TinyWorld", world.action_space), (), ())
    fields = world_fields(world, Sampling(), keys)
    write_site(out, world, fields, starts(world, clips, 2, CONTEXT), "fp32", runtime_files)
    return json.loads((out / "site.json").read_text())


def python_codes(
    scratch: Path,
    site: Mapping[str, Any],
    actions: list[Any],
    sampling: Mapping[str, float],
    seed: int,
    films: bool = False,
) -> list[list[int]]:
    """The codes of the latent steps that Python dreams from the first start clip, each flat."""
    from vqvideo.export import OnnxWorld
    from vqvideo.export.writing import export_world

    if not (scratch / "exported").exists():
        export_world(site_world(films), scratch / "exported")
    start = site["starts"][0]
    acting = [*start["context_actions"], *actions]
    flat = np.array(acting, float).reshape(1, 2 * len(acting), -1)
    codes = np.array(start["codes"])[None]
    dream = OnnxWorld(scratch / "exported").imagine(codes=codes, actions=flat, sampling=Sampling(**sampling), seed=seed)
    return dream.codes[0].reshape(len(actions), -1).tolist()
