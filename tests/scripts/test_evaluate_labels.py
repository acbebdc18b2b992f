"""The script that measures worlds of labels, from end to end on an untrained one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from label_worlds import label_store, label_world
from PIL import Image

from vqvideo.scripts.evaluate_labels import Options, evaluate


def test_figures_and_picture_lie_beside_the_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = label_store(tmp_path)
    label_world(store).save_pretrained(tmp_path / "run" / "world")
    options = Options(world=tmp_path / "run" / "world", store=store.path, per_label=2, epochs=1, threads=1)
    record = evaluate(options)
    assert json.loads((tmp_path / "run" / "labels.json").read_text()) == record
    assert record["labels"]["per_label"] == 2
    assert record["settings"]["seed"] == 0
    assert len(record["labels"]["recognised_by_label"]) == 10
    assert Image.open(tmp_path / "run" / "labels.png").size[0] > 100
    assert "2 frames imagined under each label" in capsys.readouterr().out
