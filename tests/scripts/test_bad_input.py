"""Input that nobody should have given, where no module's own tests have it yet: what comes back says what is wrong."""

from __future__ import annotations

import ast
import os
import stat
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stores import make_episode, make_meta, make_store
from stub_envs import FixedPolicy, MemoryWriter, SamplePolicy, StubEnv
from test_architecture import ALL, module_name
from tiny_models import make_spec, tiny_prior, tiny_vqvae, tiny_world
from torch import Tensor

from vqvideo.data.clips import Clips
from vqvideo.data.collect import collect
from vqvideo.data.store import StoreWriter
from vqvideo.errors import InputError
from vqvideo.evaluation.video import write_mp4, write_png
from vqvideo.storage.checkpoint import save_model
from vqvideo.training.run_folder import RunFolder
from vqvideo.world import EnvFacts, WorldModel

ROOT = Path(__file__).parents[2]


def play(make_env: Any, make_policy: Any = SamplePolicy) -> MemoryWriter:
    writer = MemoryWriter()
    options = {"episodes": 1, "max_steps": 5, "frame_size": (16, 16), "workers": 0, "progress": False}
    collect(make_env, make_policy, writer, **options)
    return writer


# ---------------------------------------------------------------- what an environment gives


class OddFromTheStart(StubEnv):
    """Its first frame already is none."""

    def __init__(self, frame: Any) -> None:
        super().__init__()
        self.odd = frame

    def frame(self) -> Any:
        return self.odd


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        ({"pixels": np.zeros((20, 20, 3), np.uint8)}, "dict"),
        ([[0, 0, 0]], "list"),
        (None, "NoneType"),
        (np.zeros((3, 20, 20), np.uint8), r"uint8 \(3, 20, 20\)"),
        (np.zeros((20, 20), np.uint8), r"uint8 \(20, 20\)"),
        (np.zeros((20, 20, 1), np.uint8), r"uint8 \(20, 20, 1\)"),
        (np.zeros((20, 20, 4), np.uint8), r"uint8 \(20, 20, 4\)"),
        (np.zeros((0, 20, 3), np.uint8), r"uint8 \(0, 20, 3\)"),
        (np.zeros((20, 20, 3)), r"float64 \(20, 20, 3\)"),
        (np.full((20, 20, 3), 255.0, np.float32), r"float32 \(20, 20, 3\)"),
        (np.full((20, 20, 3), np.nan), r"float64 \(20, 20, 3\)"),
        (np.zeros((20, 20, 3), np.uint16), r"uint16 \(20, 20, 3\)"),
    ],
)
def test_a_first_frame_that_is_none_is_refused_and_its_range_not_guessed(frame: Any, found: str) -> None:
    with pytest.raises(InputError, match=rf"step 0: the frame is {found}; expected .h, w, 3."):
        play(partial(OddFromTheStart, frame))


class OddReward(StubEnv):
    """Pays in a strange currency."""

    def __init__(self, reward: Any) -> None:
        super().__init__()
        self.reward = reward

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        return self.frame(), self.reward, False, False, {}


@pytest.mark.parametrize("reward", [None, "x", np.zeros(2), [1.0], np.inf, -np.inf, 1e39, 10**400, 1j])
def test_a_reward_that_is_no_finite_number_is_refused(reward: Any) -> None:
    with pytest.raises(InputError, match=r"episode 0 \(seed \d+\), step 0: the environment's reward is"):
        play(partial(OddReward, reward))


@pytest.mark.parametrize("reward", [1, np.float32(0.5), np.array(2.0), True, np.int64(-3)])
def test_a_reward_may_be_any_number(reward: Any) -> None:
    assert play(partial(OddReward, reward)).episodes[0].rewards[0] == float(reward)


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        ("tuple", (3, [0.5, 0.5])),
        ("tuple", (1.0, [0.5, 0.5])),
        ("tuple", (1, [np.nan, 0.5])),
        ("tuple", (1,)),
        ("dict", {"arm": [0.0, np.inf], "buttons": {"jump": 1, "pads": [0, 1]}}),
        ("dict", {"arm": [0.0, 0.0], "buttons": {"jump": 1}}),
        ("dict", {"arm": [0.0, 0.0], "buttons": {"jump": 2, "pads": [0, 1]}}),
        ("dict", [0.0, 0.0]),
        ("multi-discrete", [3, 0]),
        ("multi-discrete", [[0, 0]]),
        ("multi-binary", [0, 1, 2, 0]),
        ("integer box", [0.5, 1]),
        ("matrix box", np.zeros(4)),
    ],
)
def test_a_bad_action_of_any_space_is_refused_before_the_environment_sees_it(kind: str, action: Any) -> None:
    with pytest.raises(InputError, match=r"episode 0 \(seed \d+\), step 0: the policy's action .* is not in"):
        play(partial(StubEnv, kind), partial(FixedPolicy, action))


# ---------------------------------------------------------------- lengths


def test_episodes_from_one_step_to_longer_than_a_clip_give_the_clips_that_they_hold(tmp_path: Path) -> None:
    store = make_store(tmp_path, [1, 7, 8, 9, 40])
    clips = Clips(store, "train", 9)
    assert len(clips) == 0 + 0 + 1 + 2 + 33
    assert [clips.locate(index) for index in (0, 1, 2, 3)] == [(0, 0), (1, 0), (1, 1), (2, 0)]


@pytest.mark.parametrize("change", [{"actions": slice(4)}, {"actions": slice(6)}, {"frames": slice(5)}])
def test_an_episode_with_an_action_too_many_or_too_few_is_not_written(tmp_path: Path, change: dict[str, slice]) -> None:
    long, episode = make_episode(6), make_episode(5)
    parts = {name: getattr(long, name)[part] for name, part in change.items()}
    with (
        StoreWriter.open(tmp_path, make_meta()) as writer,
        pytest.raises(InputError, match=r"episode 0: (actions|rewards): shape \(\d"),
    ):
        writer.add(0, type(episode)(**(vars(episode) | parts)), "train")
    assert list((tmp_path / "episodes").iterdir()) == []


# ---------------------------------------------------------------- models that do not belong together


@pytest.mark.parametrize(
    "change", [{"codebook_size": 32}, {"grid": (4, 4)}, {"stride": 4}, {"code_dim": 8}, {}], ids=str
)
def test_a_prior_of_another_tokenizers_codes_is_refused_before_the_first_pass(change: dict[str, Any]) -> None:
    """Of other numbers, another size or rate, or the same and other weights."""
    prior = tiny_prior(make_spec(**({"tokenizer": "0" * 64} | change)))
    with pytest.raises(InputError, match=r"the prior .*: train the prior again on"):
        WorldModel(tiny_vqvae(), prior, EnvFacts("Tiny-v0", 10.0, 1))


# ---------------------------------------------------------------- codes


BAD_CODES = [-1, 16, 2**31, 2**62, -(2**63)]


def with_code(shape: tuple[int, ...], code: int) -> Tensor:
    codes = torch.zeros(shape, dtype=torch.int64)
    codes.view(-1)[-1] = code
    return codes


@pytest.mark.parametrize("code", BAD_CODES)
def test_a_code_that_there_is_not_is_refused_by_every_door(code: int) -> None:
    world = tiny_world()
    message = rf"codes ({code}\.\.0|0\.\.{code}) found, expected 0\.\.15"
    codes, actions = with_code((1, 3, 2, 2), code), torch.zeros(1, 2, 2, 1)
    rewards, ends = torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool)
    state = world.vqvae.init_state(1)
    doors = [
        lambda: world.vqvae.decode(codes),
        lambda: world.vqvae.decode_step(codes, state),
        lambda: world.vqvae.quantizer.check(codes),
        lambda: world.prior.start(codes, actions),
        lambda: world.prior.likelihood(codes, actions),
        lambda: world.prior(codes, actions, rewards, ends),
        lambda: world.prior.train()(codes, actions, rewards, ends),
    ]
    for door in doors:
        with pytest.raises(InputError, match=message):
            door()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int32, torch.uint8])
def test_codes_of_another_type_are_refused_by_a_prior(dtype: torch.dtype) -> None:
    prior = tiny_prior()
    with pytest.raises(InputError, match=rf"codes of type {dtype}, expected torch.int64"):
        prior.start(torch.zeros(1, 2, 2, 2, dtype=dtype), torch.zeros(1, 1, 2, 1))


def test_no_codes_at_all_are_no_wrong_codes() -> None:
    tiny_prior().check_codes(torch.zeros(0, 2, 2, 2, dtype=torch.int64))


# ---------------------------------------------------------------- what is written


def test_all_that_is_written_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        make_store(tmp_path / "store", [3])
        save_model(tmp_path / "model", "toy", {"a": 1}, {"w": torch.zeros(1)})
        write_mp4(tmp_path / "clip.mp4", np.zeros((2, 8, 8, 3), np.uint8), fps=10)
        write_png(tmp_path / "image.png", np.zeros((8, 8, 3), np.uint8))
        RunFolder(tmp_path).log({"step": 1, "split": "train"})
    finally:
        os.umask(old)
    found = {p.relative_to(tmp_path): stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")}
    assert len(found) > 10
    assert found == {p: 0o750 if (tmp_path / p).is_dir() else 0o640 for p in found}


# ---------------------------------------------------------------- what is never done


FORBIDDEN = {
    *("eval", "exec", "__import__", "os.system", "os.popen", "marshal.load", "marshal.loads", "shelve.open"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.FullLoader", "yaml.UnsafeLoader"),
    *("dill.load", "dill.loads", "pd.read_pickle", "torch.jit.load", "torch.hub.load", "torch.package"),
    *("shutil.unpack_archive", "tarfile.open", "zipfile.ZipFile", "pickle.Unpickler"),
}
"""Ways to run what a file says, or to write where it says. (Those that unpickle are forbidden next door.)"""


def forbidden_in(source: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(source)))
    names = {ast.unparse(node) for node in nodes if isinstance(node, ast.Name | ast.Attribute)}
    calls = [keyword for node in nodes if isinstance(node, ast.Call) for keyword in node.keywords]
    switches = {f"{k.arg}={ast.unparse(k.value)}" for k in calls if k.arg in ("shell", "allow_pickle", "weights_only")}
    return (names & FORBIDDEN) | (switches & {"shell=True", "allow_pickle=True", "weights_only=False"})


@pytest.mark.parametrize("path", ALL, ids=module_name)
def test_nothing_that_is_loaded_is_run(path: Path) -> None:
    assert forbidden_in(path.read_text()) == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("eval('1')", "eval"),
        ("f = exec", "exec"),
        ("import yaml\nyaml.load(x, Loader=yaml.FullLoader)", "yaml.load"),
        ("import numpy as np\nnp.load(x, allow_pickle=True)", "allow_pickle=True"),
        ("torch.load(x, weights_only=False)", "weights_only=False"),
        ("subprocess.run(x, shell=True)", "shell=True"),
    ],
)
def test_what_is_forbidden_is_found(source: str, found: str) -> None:
    assert found in forbidden_in(source)
    assert forbidden_in("model.eval()\nyaml.safe_load(x)\ntorch.load(x, weights_only=True)") == set()


def test_versions_with_known_holes_are_not_installed() -> None:
    """Of torch the `weights_only` reader before 2.10, of PyAV the hangs before 15.1."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    least = dict(line.split(">=") for line in wanted if ">=" in line)
    assert tuple(map(int, least["torch"].split("."))) >= (2, 10)
    assert tuple(map(int, least["av"].split("."))) >= (15, 1)
