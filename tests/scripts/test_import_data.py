"""From a folder of videos to a world that dreams on, with the commands that a newcomer types."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from processes import script
from videos import moving_frames, read_video, write_video

import vqvideo.imagined_env
from vqvideo.data.store import Store
from vqvideo.scripts import (
    evaluate,
    evaluate_dreams,
    evaluate_world,
    import_data,
    improve,
    rollout,
    train_agent,
    train_prior,
    train_vqvae,
)
from vqvideo.world import WorldModel

assert vqvideo.imagined_env  # registers the name
SETTINGS = """
vqvae:
  latent_steps: 3
  validation_clips: 2
  stills: {per_batch: 1}
  model:
    backbone: {strides: [2, 8, 8], widths: [8, 16], encoder_blocks: 1, decoder_blocks: 1}
    quantizer: {kind: EMAVQ, codebook_size: 16, dim: 4}
  train: &train {steps: 3, batch: 2, warmup: 1, threads: 1, precision: no, checkpoint_every: 3}
prior:
  latent_steps: 4
  validation_clips: 2
  segments: {latent_steps: 6, every: 5}
  model: {dim: 16, heads: 2, layers: 2, window: 3}
  train: *train
"""
Called = Callable[..., tuple[int, str]]
DREAM = ("--context", 2, "--clips", 2)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three films, a store of them and a world that trained on it."""
    home = tmp_path_factory.mktemp("home")
    (home / "tiny.yaml").write_text(SETTINGS)
    for number in range(3):
        write_video(home / "my_videos" / f"{number}.mkv", np.roll(moving_frames(50), number * 9, axis=2))
    store = ("--name", "my_videos", "--store", "data/my_videos")
    for command in (
        ("import_data", "--from", "videos", "my_videos", "--out", "data/my_videos", "--frame-size", "32x48"),
        ("train_vqvae", "--config", "tiny.yaml", *store),
        ("train_prior", "--config", "tiny.yaml", *store),
    ):
        ended = script(*command, cwd=home)
        assert ended.code == 0, ended.err
        (home / f"{command[0]}.out").write_text(ended.out + ended.err)
    return home


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def test_an_import_says_how_to_go_on_and_trainings_record_nothing(home: Path) -> None:
    assert "train-vqvae" not in (home / "import_data.out").read_text(), "the launcher starts a module"
    assert "train_vqvae --name my_videos --store data/my_videos" in (home / "import_data.out").read_text()
    assert {path.name for path in (home / "data").iterdir()} == {"my_videos"}
    assert len(Store.open(home / "data" / "my_videos").entries) == 3
    of_prior = (home / "train_prior.out").read_text()
    said = (home / "train_vqvae.out").read_text() + of_prior
    assert not [word for word in ("recording", "record.py", "note:", "CarRacing") if word in said]
    assert "token_nats" in of_prior
    assert not [word for word in ("reward", "termination", "nan") if word in of_prior]


@pytest.mark.usefixtures("at_home")
def test_a_world_of_videos_makes_films_and_is_measured(called: Called) -> None:
    code, said = called(rollout.main, "--name", "my_videos", *DREAM, "--length", 4, "--evaluate", 2)
    assert code == 0, said
    film = read_video(Path("runs/my_videos/rollout/dream_true.mp4"))
    assert len(film) == 1 + 2 * (2 + 4 - 1)
    assert (film[0] != film[-1]).any()
    code, more = called(evaluate_world.main, "--name", "my_videos", *DREAM, "--horizon", 3, "--no-frechet")
    assert code == 0, more
    assert not [word for word in ("controllability", "actions", "reward", "nan", "None") if word in said + more]
    figures = json.loads(Path("runs/my_videos/evaluation.json").read_text())
    assert "controllability_db" in figures["dreams"]
    assert figures["dreams"]["controllability_db"] is None
    code, _ = called(evaluate.main, "--config", "tiny.yaml", "--name", "my_videos", "--record.out", "data/my_videos")
    assert code == 0


@pytest.mark.usefixtures("at_home")
def test_what_needs_actions_or_an_environment_is_refused_at_once(called: Called) -> None:
    assert called(rollout.main, "--name", "my_videos", "--actions", "left") == (
        2,
        "error: --actions left: this world was trained without actions; leave the option away\n",
    )
    code, said = called(evaluate_dreams.main, "--name", "my_videos")
    assert code == 2
    assert "has no actions, under which episodes could be played again" in said
    ours = ("--config", "tiny.yaml", "--name", "my_videos", "--record.out", "data/my_videos")
    code, said = called(train_agent.main, *ours)
    assert code == 2
    assert "imported from videos: there is no environment that an agent could play" in said
    code, said = called(improve.main, *ours)
    assert code == 2
    assert "imported from videos" in said
    assert not Path("runs/my_videos/agent").exists()


@pytest.mark.usefixtures("at_home")
def test_a_world_of_videos_is_found_by_name_as_an_environment() -> None:
    env = gymnasium.make(
        "vqvideo/Imagined-v0", world="runs/my_videos/world", starts="data/my_videos", horizon=3,
        reward=vqvideo.imagined_env.no_reward,
    )  # fmt: skip
    env.reset(seed=0)
    steps = [env.step(env.action_space.sample()) for _ in range(3)]
    assert [step[1] for step in steps] == [0, 0, 0]
    assert steps[-1][2] or steps[-1][3]
    dream = WorldModel.from_pretrained("runs/my_videos/world").imagine(np.zeros((1, 1, 3, 32, 48), np.uint8), steps=2)
    assert dream.frames.shape == (1, 4, 3, 32, 48)


@pytest.mark.usefixtures("at_home")
@pytest.mark.parametrize("main", [train_vqvae.main, train_prior.main])
def test_a_store_that_is_not_there_is_not_recorded(called: Called, main: Callable[[], None]) -> None:
    code, said = called(main, "--config", "tiny.yaml", "--name", "other", "--store", "data/my_vidoes")
    assert code == 2
    assert said.startswith(
        "error: --store: no episodes in data/my_vidoes. Import videos: vqvideo import-data my_videos"
    )
    assert not Path("data/my_vidoes").exists()


def test_videos_that_are_not_there_or_broken_end_with_one_sentence(
    called: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = called(import_data.main, "nowhere")
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("error: nowhere: no such file or folder; videos end in ")
    Path("bad.mp4").write_bytes(b"junk")
    code, said = called(import_data.main, "bad.mp4")
    assert code == 2
    assert "bad.mp4: not a video that can be read" in said
    assert [path.name for path in tmp_path.iterdir()] == ["bad.mp4"]
