"""`scripts/export.py` as a newcomer types it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import tiny_store, tiny_world

from vqvideo.export import OnnxWorld
from vqvideo.scripts import export

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

Called = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_world().save_pretrained("runs/mine/world")
    tiny_store(tmp_path / "data" / "mine", steps=8)


def test_a_trained_world_and_its_held_out_clips_are_exported(called: Called) -> None:
    code, shown = called(export.main, "--name", "mine", "--weights", "int8")
    assert code == 0
    assert "int8 costs" in shown
    assert 'OnnxWorld("exports/mine_onnx")' in shown
    dreams = OnnxWorld("exports/mine_onnx")
    codes, actions = dreams.starts
    dream = dreams.imagine(codes=codes[:, :2], actions=actions, seed=0)
    assert dream.frames.shape[1:] == (6, 3, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--world", "nowhere"), "no world model in nowhere"),
        (("--name", "mine", "--out", "data"), "error: data: it exists and is not empty"),
        (("--name", "mine", "--store", "nowhere"), "error: no episodes in nowhere"),
        (("--name", "mine", "--weights", "int4"), "--weights"),
    ],
)
def test_what_cannot_be_done_ends_with_code_2(arguments: tuple[str, ...], message: str, called: Called) -> None:
    code, shown = called(export.main, *arguments)
    assert code == 2
    assert message in shown
    assert not Path("exports").exists()
