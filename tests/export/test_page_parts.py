"""Parts of the page in node: keys and animated PNGs."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pages import node
from PIL import Image

from vqvideo.envs.keys import controls, to_json
from vqvideo.spaces import ActionSpace


def test_keys_held_together_make_one_action(tmp_path: Path) -> None:
    space = ActionSpace.from_json(
        {"kind": "box", "shape": [3], "dtype": "float32", "low": [-1.0, 0.0, 0.0], "high": [1.0, 1.0, 1.0]}
    )
    page = to_json(space, controls("CarRacing", space), (), ())
    code = f"""
        import {{ combined, heldBindings }} from "./controls.js";
        const {{ columns, keys }} = {json.dumps(page)};
        const held = (...names) => combined(columns, [0, 0, 0], heldBindings(keys, new Set(names)));
        const game = ["up", "right", "fire", "upright"].map((label, at) => ({{ label, action: [at + 1],
          keys: [["ArrowUp"], ["ArrowRight"], ["Space"], ["ArrowUp", "ArrowRight"]][at] }}));
        const one = [{{ categories: 5, neutral: 0, low: 0, high: 4 }}];
        const played = (...names) => combined(one, [0], heldBindings(game, new Set(names)))[0];
        console.log(JSON.stringify([held(), held("ArrowLeft"), held("ArrowLeft", "ArrowUp"),
          [played(), played("ArrowUp"), played("ArrowRight", "ArrowUp"), played("ArrowUp", "Space")]]));
    """
    nothing, left, both, played = node(tmp_path, code)
    assert nothing == [0, 0, 0]
    assert left == pytest.approx([-0.5, 0.2, 0])
    assert both == pytest.approx([-0.5, 0.7, 0])
    # The larger of two bindings wins, and of two keys that are no binding, the newest.
    assert played == [0, 1, 4, 3]


def test_an_animated_png_keeps_every_pixel(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(256, size=(3, 6, 10, 3), dtype=np.uint8)
    code = f"""
        import {{ animatedPng }} from "./animated-png.js";
        const frames = {json.dumps(frames.reshape(3, -1).tolist())}.map((frame) => Uint8Array.from(frame));
        const file = await animatedPng(frames, [6, 10], 25, {{ seed: 7, name: "Grün" }});
        console.log(JSON.stringify(Buffer.from(await file.arrayBuffer()).toString("base64")));
    """
    picture = Image.open(io.BytesIO(base64.b64decode(node(tmp_path, code))))
    assert (picture.n_frames, json.loads(picture.info["vqvideo"])) == (3, {"seed": 7, "name": "Grün"})
    for number, frame in enumerate(frames):
        picture.seek(number)
        assert picture.info["duration"] == 40
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), frame)
