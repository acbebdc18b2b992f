"""What cannot be exported or run says so, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_worlds import exported, some_actions, world_of
from tiny_models import NOTHING, noise_frames

from vqvideo.errors import InputError, MissingExtraError
from vqvideo.export import OnnxWorld
from vqvideo.export.writing import export_world
from vqvideo.models.prior import Sampling
from vqvideo.models.tokenizer import VQVAEConfig
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.quantizers import EMAVQ, EMAVQConfig

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


class Foreign(EMAVQ):
    """A quantizer that is not one of vqvideo's."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = world_of(layers=2)
    where = tmp_path_factory.mktemp("exports") / "world"
    export_world(world, where, starts=(noise_frames(2, 5), some_actions(world, 2, 2)))
    return where


def changed(folder: Path, tmp_path: Path, **info: Any) -> Path:
    """The same export with other facts, as if it had been written so."""
    from vqvideo.storage import files

    manifest = files.read_manifest(folder)
    contents: dict[str, Any] = {name: (folder / name).read_bytes() for name in manifest.files}
    files.commit_folder(tmp_path / "changed", contents, manifest.info | info)
    return tmp_path / "changed"


def test_a_dream_needs_neither_torch_nor_anything_but_numpy_and_onnxruntime(folder: Path) -> None:
    code = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        first = name.split(".")[0]
        if first not in ("vqvideo", "numpy", "onnxruntime") and first not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)
sys.meta_path.insert(0, Blocker())
from vqvideo.export import OnnxWorld
world = OnnxWorld({str(folder)!r})
codes, actions = world.starts
dream = world.imagine(codes=codes, actions=actions.repeat(2, axis=1), seed=0)
print(dream.frames.shape, "torch" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert run.stdout.strip() == "(2, 4, 3, 16, 16) False", run.stderr


def test_a_quantizer_from_outside_is_refused_by_name(tmp_path: Path) -> None:
    vqvae = VQVAE(VQVAEConfig(), (16, 16), Foreign(EMAVQConfig(codebook_size=16, dim=4))).eval()
    with pytest.raises(InputError, match=r"quantizer from outside \(.*Foreign\)"):
        export_world(world_of(vqvae), tmp_path / "world")
    assert list(tmp_path.iterdir()) == []


def test_a_world_in_half_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"torch.bfloat16 on cpu, expected world.float\(\).cpu\(\)"):
        export_world(world_of().to(torch.bfloat16), tmp_path / "world")


def test_a_folder_that_is_there_stays_unless_it_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        export_world(world_of(layers=2), tmp_path / "world")
    assert [path.name for path in (tmp_path / "world").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("package", "call"), [("onnx", "export"), ("onnxruntime", "run")])
def test_a_missing_package_names_the_extra(
    package: str, call: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vqvideo\[onnx\]'"):
        OnnxWorld(folder) if call == "run" else export_world(world_of(), tmp_path / "world")


def test_a_damaged_graph_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = changed(folder, tmp_path)
    graph = copy / "step.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(InputError, match=r"step.onnx: sha256 is .* damaged"):
        OnnxWorld(copy)


def test_other_folders_and_versions_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder. Make it: python scripts/export.py"):
        OnnxWorld(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"'onnx-world' of version 99, expected 'onnx-world' of version 1"):
        OnnxWorld(changed(folder, tmp_path, version=99))
    (tmp_path / "changed" / "manifest.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(InputError, match=r"manifest\.json"):
        OnnxWorld(tmp_path / "changed")


FRAMES, STEP = np.zeros((1, 3, 3, 16, 16), np.uint8), np.zeros((1, 2, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frames": FRAMES[:, :2], "actions": STEP}, r"a clip of 2 frames, expected 1 \+ 2 k"),
        ({"frames": FRAMES[..., :8], "actions": STEP}, r"shape \(1, 3, 3, 16, 8\), expected uint8 or float"),
        ({"frames": FRAMES + 2.0, "actions": STEP}, r"float frames from 2 to 2, expected 0..1"),
        ({"frames": FRAMES}, "actions are missing and steps is None"),
        ({"frames": FRAMES, "actions": STEP}, r"actions of shape \(1, 2, 1\) for a context of 3 frames"),
        (
            {"frames": FRAMES, "actions": np.full((1, 4, 1), 5.0)},
            r"actions.*: column 0 is 5.0, expected a whole number",
        ),
        ({"frames": FRAMES, "actions": np.zeros((1, 4, 2))}, r"expected numbers \(1, 2, 1\)"),
        ({"actions": STEP}, "expected either frames or codes"),
        ({"codes": np.full((1, 1, 2, 2), 16), "actions": STEP}, r"codes 16..16 found, expected 0..15"),
        ({"codes": np.zeros((1, 4, 2, 2), int), "actions": np.zeros((1, 8, 1))}, "a context of 4 latent steps"),
        ({"codes": np.zeros((1, 1, 3, 2), int), "actions": STEP}, r"expected whole numbers \(b, t, 2, 2\)"),
        ({"frames": FRAMES[:, :1], "actions": STEP, "sampling": Sampling(top_k=3)}, "top_k is 3: an exported world"),
    ],
)
def test_what_a_dream_cannot_be_made_of_is_named(folder: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OnnxWorld(folder).imagine(**arguments)


def test_guidance_without_actions_is_refused(tmp_path: Path) -> None:
    dreams = exported(world_of(space=NOTHING, layers=2), tmp_path / "world")
    with pytest.raises(InputError, match=r"guidance is 2\.0, but this world has no actions"):
        dreams.imagine(noise_frames(1, 1).numpy(), steps=2, sampling=Sampling(guidance=2.0))
    with pytest.raises(InputError, match="has no start clips"):
        _ = dreams.starts
