"""The quickstart's table says which floor a run reached, and the same command takes other games and films."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from mnist_files import squares, write_mnist
from videos import moving_frames, write_video

from vqvideo.data.store import Store
from vqvideo.scripts import quickstart

if TYPE_CHECKING:
    from vqvideo.experiment.config import Experiment

TINY = """
vqvae:
  latent_steps: {steps}
  validation_clips: 2
  model:
    backbone: {{strides: [{stride}, 4, 4], patch: 2, widths: [8, 16], encoder_blocks: 1, decoder_blocks: 1}}
    quantizer: {{kind: EMAVQ, codebook_size: 16, dim: 4}}
  train: &train {{steps: 2, batch: 2, warmup: 1, threads: 1, precision: no, checkpoint_every: 2}}
prior:
  latent_steps: 3
  validation_clips: 2
  model: {{dim: 16, heads: 2, layers: 2, window: 4, patch: {patch}}}
  train: *train
"""


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("at_home")
def test_a_folder_of_films_becomes_a_dream_in_one_command(called: Callable[..., tuple[int, str]]) -> None:
    Path("tiny.yaml").write_text(TINY.format(steps=3, stride=2, patch=1))
    for number in range(2):
        write_video(Path(f"my_films/{number}.mkv"), moving_frames(44, (16, 16)) + np.uint8(number))
    code, said = called(quickstart.main, "--config", "tiny.yaml", "--source", "my_films", "--record.frame-size", 16)
    assert code == 0, said
    assert "[1/4] importing my_films" in said
    assert "true actions" not in said.split("[4/4]")[1]
    assert "floor" not in said
    results = json.loads(Path("runs/my_films/results.json").read_text())
    assert Path(results["video"]).is_file()
    assert len(results["prior"]["psnr_gain_db"]) == 16
    assert len(Store.open(Path("data/my_films")).entries) == 2


@pytest.mark.usefixtures("at_home")
def test_labelled_stills_are_imported_and_imagined_by_label(called: Callable[..., tuple[int, str]]) -> None:
    settings = TINY.format(steps=1, stride=1, patch=1)
    Path("tiny.yaml").write_text(f"record: {{source: data/MNIST, out: data/mnist, frame_size: 28, steps: 4}}{settings}")
    for part, count in (("train", 40), ("t10k", 20)):
        write_mnist(Path("data"), *squares(count), part)
    code, said = called(quickstart.main, "--config", "tiny.yaml", "--name", "digits")
    assert code == 0, said
    results = json.loads(Path("runs/digits/results.json").read_text())
    assert len(results["labels"]["recognised_by_label"]) == 10
    assert Path(results["picture"]).is_file()
    assert "is taken for its label" in said


@pytest.mark.usefixtures("at_home")
@pytest.mark.parametrize(
    ("arguments", "store", "run"),
    [
        ((), "data/quickstart", "runs/quickstart"),
        (("--env", "TinyWorld"), "data/tiny_world", "runs/tiny_world"),
        (("--env", "MiniGrid-Empty-5x5-v0"), "data/mini_grid_empty_5x5_v0", "runs/mini_grid_empty_5x5_v0"),
        (("--source", "films/of_mine"), "data/of_mine", "runs/of_mine"),
    ],
)
def test_other_games_and_films_have_a_store_and_a_run_of_their_name(
    called: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    store: str,
    run: str,
) -> None:
    Path(run).mkdir(parents=True)
    seen: list[Experiment] = []
    monkeypatch.setattr(quickstart, "quickstart", lambda cfg: seen.append(cfg) or {})
    monkeypatch.setattr(quickstart, "print_table", lambda cfg, results: None)
    code, said = called(quickstart.main, *arguments)
    assert code == 0, said
    assert (str(seen[0].record.folder), str(seen[0].folder)) == (store, run)


def figures(
    psnr: float = 40.0, codes: float = 1.0, gains: tuple[float, ...] = (7.0,) * 16, actions: float = 5.0
) -> Any:
    return {
        "tokenizer": {"psnr_db": psnr, "codes_used": codes},
        "prior": {"psnr_gain_db": list(gains), "controllability_db": actions},
    }


@pytest.mark.parametrize(
    ("found", "floor"),
    [
        (figures(), "fast machine"),
        (figures(psnr=37.9), "ordinary machine"),
        (figures(gains=(1.9, *[9.0] * 15)), "busy machine"),  # the mean alone does not do
        (figures(gains=(5.0,) * 8 + (-3.0,) * 8), "ordinary machine"),  # beyond 8 steps it is not looked at
        (figures(codes=0.97), "busy machine"),
        (figures(actions=3.9), "busy machine"),
        (figures(psnr=33.0, gains=(0.0,) * 16, actions=0.0), "busy machine"),
        (figures(gains=(-0.1, *[9.0] * 15)), None),
        (figures(psnr=32.9), None),
    ],
)
def test_a_floor_holds_in_every_respect_or_not_at_all(found: dict[str, Any], floor: str | None) -> None:
    reached = quickstart.floor_reached(found)
    assert (reached and reached.name) == floor


def test_the_table_names_the_floor_and_what_it_asks_for() -> None:
    assert quickstart.floor_text(figures(psnr=36.0)) == (
        "ordinary machine: 35.5 dB, 98% of the codes, +4.5 dB over repeating (worst +2), true actions +4 dB"
    )
    assert quickstart.floor_text(figures(psnr=20.0)).startswith("below that of a busy machine: 33 dB")
