"""Parts of the page in node: random numbers, keys, animated PNGs, and graphs in onnxruntime-web, as Python has them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from dreamt_sites import CONTEXT, python_codes, tiny_site
from pages import need_runtime, node
from PIL import Image

from vqvideo.envs.keys import controls, to_json
from vqvideo.export.noise import keys, noise
from vqvideo.spaces import ActionSpace


def test_random_numbers_are_those_of_python(tmp_path: Path) -> None:
    places = [(0, 0), (1, 0), (1, 7), (2**32 - 1, 1), (2**40 + 5, 2**20)]
    code = 'import { noise } from "./noise.js";\n'
    code += f"console.log(JSON.stringify({json.dumps(places)}.map(([seed, step]) => [...noise(seed, step, 5)])));"
    ours = [noise(keys([seed]), np.array([step]), 5)[0].tolist() for seed, step in places]
    assert node(tmp_path, code) == ours


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


@pytest.mark.parametrize("films", [False, True], ids=["actions", "films"])
def test_graphs_in_webassembly_dream_the_codes_of_python(tmp_path: Path, films: bool) -> None:
    site = tiny_site(tmp_path / "site", need_runtime(), films)
    actions = [[[], []] if films else [[step % 5], [(step + 1) % 5]] for step in range(12)]
    ways = [
        {"temperature": 0.9, "top_p": 0.9, "guidance": guidance} for guidance in ((1.0,) if films else (1.0, 0.0, 1.5))
    ]
    code = f"""
        import fs from "node:fs";
        import zlib from "node:zlib";
        import {{ Dreamer }} from "./dreamer.js";
        fs.renameSync("ort.js", "ort.mjs");
        const ort = await import("./ort.mjs");
        const site = JSON.parse(fs.readFileSync("site.json"));
        const read = (name) => new Uint8Array(zlib.gunzipSync(fs.readFileSync(`${{name}}.gz`)));
        Object.assign(ort.env.wasm, {{ wasmBinary: read("ort.wasm").buffer, numThreads: 1 }});
        const session = (name) => ort.InferenceSession.create(read(`${{name}}.onnx`));
        const [step, decoder] = [await session("step"), await session("decoder")];
        const dreamer = new Dreamer(ort, site.model, {{ step, decoder }});
        const {{ codes, context_actions: before }} = site.starts[0];
        const dreams = [];
        for (const sampling of {json.dumps(ways)}) {{
          await dreamer.start(codes, before, 11);
          const dream = [];
          for (const acting of {json.dumps(actions)}) dream.push([...(await dreamer.step(acting, sampling)).codes]);
          dreams.push(dream);
        }}
        console.log(JSON.stringify(dreams));
    """
    assert len(site["starts"][0]["codes"]) == CONTEXT
    dreams = node(tmp_path / "site", code)
    assert dreams == [python_codes(tmp_path, site, actions, sampling, 11, films) for sampling in ways]
    assert len({str(dream) for dream in dreams}) == len(ways)
