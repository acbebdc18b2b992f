"""`scripts/rollout.py` where nothing was trained and nothing recorded: the shipped world, and no simulator."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image
from processes import SCRIPTS, run
from stores import make_meta
from tiny_models import SIZE, tiny_episode, tiny_world
from videos import read_video

sys.path.insert(0, str(SCRIPTS))

from vqvideo.data.clips import Clips
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.evaluation import pictures
from vqvideo.scripts import rollout
from vqvideo.scripts.shipment import export_world, rounded
from vqvideo.spaces import ActionSpace
from vqvideo.world import EnvFacts, WorldModel

CAR = ActionSpace.from_gymnasium(spaces.Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32)))
SMALL = rollout.Options(context=2, length=3, clips=2, evaluate=0, threads=1)
NO_SIMULATOR = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0].lower() in ("box2d", "pygame"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def car_world(seed: int = 0) -> WorldModel:
    """An untrained world of the spaces of CarRacing."""
    world = tiny_world(space=CAR, seed=seed)
    world.env = EnvFacts("CarRacing", 25.0, 2)
    return world


def car_store(path: Path, episodes: int = 3, length: int = 12) -> Store:
    """Held-out episodes that call themselves CarRacing."""
    meta = make_meta(env_id="CarRacing", action_space=CAR, frame_size=(SIZE, SIZE), fps=25.0)
    actions = np.random.default_rng(0).uniform(0, 1, (length, 3))
    with StoreWriter.open(path, meta) as writer:
        seeds = (seed for seed in range(1000) if tiny_episode(length, seed).length == length)
        for index, seed in zip(range(episodes), seeds, strict=False):
            writer.add(index, replace(tiny_episode(length, seed), actions=actions), "held_out")
    return Store.open(path)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the shipped world CarRacing."""
    home = tmp_path_factory.mktemp("shipped")
    clips = Clips(car_store(home / "data"), "held_out", 9)
    export_world(rounded(car_world()), home / "worlds" / "carracing", clips, clips.spread(3).tolist(), "card")
    return home / "worlds"


@pytest.fixture(autouse=True)
def _cold(worlds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder."""
    monkeypatch.setenv("VQVIDEO_WORLDS", str(worlds))
    monkeypatch.chdir(tmp_path)


def test_without_a_simulator_every_kind_of_action_is_dreamt(worlds: Path, tmp_path: Path) -> None:
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "sitecustomize.py").write_text(NO_SIMULATOR)
    path = os.pathsep.join(filter(None, [str(tmp_path / "hooks"), os.environ.get("PYTHONPATH")]))
    kinds = ("true", "left", "smooth", "random", "-0.5,0.2,0")
    (tmp_path / "all.py").write_text(
        f"import sys\nsys.path.insert(0, {str(SCRIPTS)!r})\nimport gymnasium, rollout\n"
        "from dataclasses import replace\n"
        "try:\n    gymnasium.make('CarRacing-v3')\n"
        "except gymnasium.error.DependencyNotInstalled:\n    print('no car')\n"
        "small = rollout.Options(context=2, length=3, clips=2, evaluate=2, threads=1)\n"
        f"for actions in {kinds}:\n    rollout.rollout(replace(small, actions=actions))\n"
    )
    ended = run(sys.executable, "all.py", cwd=tmp_path, VQVIDEO_WORLDS=str(worlds), PYTHONPATH=path)
    assert ended.code == 0, ended.err
    assert "no car" in ended.out
    assert ended.out.count("no world model in runs/car_racing/world: taking carracing, which comes with") == len(kinds)
    assert ended.out.count("no episodes in data/car_racing: taking the 3 start clips of carracing") == len(kinds)
    assert "held-out clips 2" in ended.out
    pictures = {path.name for path in (tmp_path / "runs" / "car_racing" / "rollout").glob("*.png")}
    assert pictures == {f"dream_{actions.replace(',', '_')}.png" for actions in kinds}


def test_what_was_trained_and_recorded_here_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = car_world(seed=1)
    own.save_pretrained(tmp_path / "runs" / "car_racing" / "world")
    assert SMALL.find_world().fingerprint() == own.fingerprint()
    assert "no world model" not in capsys.readouterr().out
    assert len(SMALL.find_store().entries) == 3, "the shipped clips, as long as nothing was recorded"
    car_store(tmp_path / "data" / "car_racing", episodes=5)
    assert len(SMALL.find_store().entries) == 5


def test_the_folders_that_are_named_win(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, store = car_world(seed=1), car_store(tmp_path / "elsewhere", episodes=5)
    own.save_pretrained(tmp_path / "mine" / "world")
    options = replace(SMALL, world=tmp_path / "mine" / "world", store=store.path)
    assert options.find_world().fingerprint() == own.fingerprint()
    assert len(options.find_store().entries) == 5
    result = rollout.rollout(options)
    assert result.picture.parent == tmp_path / "mine" / "rollout"
    assert "taking" not in capsys.readouterr().out


def test_a_shipped_world_can_be_named(worlds: Path, tmp_path: Path) -> None:
    shipped = WorldModel.from_pretrained(worlds / "carracing")
    options = replace(SMALL, env="TinyWorld", world=Path("CarRacing"))
    assert options.find_world().fingerprint() == shipped.fingerprint()
    assert options.find_store().meta.env_id == "CarRacing"
    assert rollout.rollout(replace(SMALL, world=Path("CarRacing"))).picture.parts[0] == "runs"


def test_who_names_a_run_gets_no_other_world() -> None:
    with pytest.raises(
        InputError, match=r"(?s)no world model in runs/mine/world.*comes with vqvideo: --env .*carracing"
    ):
        replace(SMALL, name="mine").find_world()
    with pytest.raises(InputError, match="no episodes in nowhere"):
        replace(SMALL, store=Path("nowhere")).find_store()


def test_dreams_are_exported_beside_their_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    options = replace(SMALL, actions="left", context=1, clips=8, export="minari", out=tmp_path / "out")
    rollout.rollout(options)
    folder = tmp_path / "out" / "dream_left_minari"
    assert f'dreams  {folder}: read them with minari.MinariDataset("{folder}/data")' in capsys.readouterr().out
    dataset = minari.MinariDataset(folder / "data")
    assert len(dataset) == 8, "those of both pages"
    for episode in dataset:
        assert 2 <= len(episode) <= 6
        assert np.allclose(episode.actions, [-0.5, 0.2, 0])
    with pytest.raises(InputError, match="dream_left_minari: it exists and is not empty"):
        rollout.rollout(options)


def test_more_clips_than_fit_beside_each_other_go_on_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rollout.rollout(replace(SMALL, context=1, length=1, clips=8, out=tmp_path / "out"))
    assert "8 clips are on 2 pages, the last one is dream_true_page2" in capsys.readouterr().out
    assert found.video == tmp_path / "out" / "dream_true.mp4"
    names = {f"dream_true{page}.{kind}" for page in ("", "_page2") for kind in ("png", "mp4")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    films = [read_video(tmp_path / "out" / name) for name in sorted(names) if name.endswith("mp4")]
    assert len({film.shape for film in films}) == 1
    assert films[0].shape[2] <= 1920
    assert (films[0] != films[1]).any()
    rollout.rollout(replace(SMALL, out=tmp_path / "out"))
    assert len(list((tmp_path / "out").iterdir())) == 2, "pages of an earlier call are gone"


def test_several_actions_have_a_row_each(tmp_path: Path) -> None:
    options = replace(SMALL, actions="left", beside=("0,1,0", "true"), columns=16, out=tmp_path / "out")
    found = rollout.rollout(options)
    assert found.picture == tmp_path / "out" / "dream_left_0_1_0_true.png"
    frames = 1 + options.find_world().stride * 4
    h, w, _ = np.asarray(Image.open(found.picture)).shape
    assert (h, w) == (2 * (4 * 128 + 3) + 6, pictures.LABEL_WIDTH + frames * 128 + 2 * (frames - 1))
    with pytest.raises(InputError, match="'lfet': did you mean left"):
        rollout.rollout(replace(options, beside=("lfet",)))


def test_fewer_clips_than_asked_for_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rollout.rollout(replace(SMALL, clips=9999))
    shown = capsys.readouterr().out
    assert "clips, which are all of this length, instead of --clips 9999" in shown


@pytest.mark.parametrize("settings", [{"context": 1, "length": 1}, {"length": 3, "evaluate": 2}, {"clips": 1}])
def test_the_shortest_and_the_fewest_give_a_video(tmp_path: Path, settings: dict[str, int]) -> None:
    found = rollout.rollout(replace(SMALL, **settings))
    assert found.video
    assert len(read_video(found.video)) > 2


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"clips": 0}, "--clips is 0, expected at least 1"),
        ({"evaluate": 1}, "--evaluate is 1, expected at least 2"),
        ({"evaluate": -3}, "--evaluate is -3, expected at least 2"),
        ({"length": 9999}, "--context 2 and --length 9999"),
    ],
)
def test_what_cannot_be_dreamt_is_told_in_the_users_words(settings: dict[str, int], told: str) -> None:
    with pytest.raises(InputError, match=told):
        rollout.rollout(replace(SMALL, **settings))


def test_a_file_in_place_of_the_folder_is_told_before_anything_is_dreamt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").touch()
    monkeypatch.setattr(WorldModel, "imagine", None)
    with pytest.raises(InputError, match="out: cannot be written"):
        rollout.rollout(replace(SMALL, out=tmp_path / "out"))


def test_without_pyav_there_is_a_picture_and_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pictures.importlib.util, "find_spec", lambda _: None)
    found = rollout.rollout(SMALL)
    assert found.video is None
    assert found.picture.is_file()
    assert "video   none: it needs PyAV (pip install av)" in capsys.readouterr().out


def test_a_policy_that_drives_the_real_car_is_refused() -> None:
    with pytest.raises(InputError, match="looks at the real game"):
        rollout.rollout(replace(SMALL, actions="drive"))


def test_a_world_of_an_environment_that_is_not_installed_takes_numbers_and_policies() -> None:
    world = car_world()
    world.env = EnvFacts("Nowhere-v7", 25.0, 2)
    assert rollout.other_actions(replace(SMALL, actions="0,1,0"), world, 2) == [[0.0, 1.0, 0.0]] * 2
    assert np.shape(rollout.other_actions(replace(SMALL, actions="smooth"), world, 4)) == (4, 3)
    with pytest.raises(InputError, match=r"'left': known: .*smooth.*true"):
        rollout.other_actions(replace(SMALL, actions="left"), world, 2)
