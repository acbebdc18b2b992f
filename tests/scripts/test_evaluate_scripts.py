"""The scripts that measure worlds and the fidelity of their dreams, from end to end on tiny ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from processes import SCRIPTS
from tiny_models import tiny_store, tiny_world

from vqvideo.data.clips import Clips
from vqvideo.data.store import Store
from vqvideo.evaluation.fidelity import evaluate_fidelity
from vqvideo.evaluation.world import evaluate_world as library
from vqvideo.models.prior import Sampling
from vqvideo.scripts import fidelity_plot
from vqvideo.world import WorldModel

sys.path.insert(0, str(SCRIPTS))

from vqvideo.scripts import evaluate_dreams, evaluate_world

Script = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a world model and six episodes, two of them held out."""
    home = tmp_path_factory.mktemp("home")
    tiny_store(home / "data" / "tiny_world", steps=25)
    tiny_world().save_pretrained(home / "runs" / "tiny_world" / "world")
    return home


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, called: Script, home: Path) -> Script:
    """Runs a script in `home`; its exit code and output."""
    monkeypatch.chdir(home)
    fixed = ("--env", "TinyWorld", "--context", 2, "--threads", 1)
    return lambda script, *arguments: called(script.main, *fixed, *arguments)


@pytest.fixture
def measure(run: Script) -> Script:
    """Measures the world."""
    return lambda *arguments: run(evaluate_world, "--horizon", 3, "--clips", 3, *arguments)


@pytest.fixture
def replay(run: Script) -> Script:
    """Measures the fidelity of its dreams."""
    return lambda *arguments: run(evaluate_dreams, "--horizon", 5, "--samples", 2, *arguments)


def figures(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


# ---------------------------------------------------------------- evaluate_world


def test_tables_are_printed_and_everything_is_written_beside_the_world(measure: Script, home: Path) -> None:
    code, shown = measure("--no-frechet")
    assert code == 0, shown
    found = figures(home / "runs" / "tiny_world" / "evaluation.json")
    assert found["settings"]["seed"] == found["dreams"]["seed"] == 0
    assert found["dreams"]["clips"] == 3
    assert found["hardware"]["cores"] >= 1
    assert {len(value) for value in found["dreams"].values() if isinstance(value, list)} == {3}
    told = found["teacher_forced"]
    assert told["likelihood_kind"] == "exact"
    assert told["bits_per_dim"] == pytest.approx(told["bits_per_frame"] / (3 * 16 * 16))
    assert f"summary: {told['token_nats']:.3f} nats per token" in shown
    for title in ("PSNR in dB", "SSIM", "RMSE of the reward", "controllability", "termination_ece"):
        assert title in shown
    assert "figures runs/tiny_world/evaluation.json" in shown


def test_the_teacher_forced_figures_cover_every_step_of_the_split(measure: Script, home: Path) -> None:
    """Episodes of 26 frames make 13 latent steps, 12 of them foretold; in clips of 5 that is 3 times 4 of each."""
    measure("--no-frechet", "--teacher-steps", 5, "--json", "told.json")
    told = figures(home / "told.json")["teacher_forced"]
    assert (told["clips"], told["latent_steps"]) == (2 * (3 + 1), 5)
    measure("--no-frechet", "--teacher-steps", 100, "--json", "whole.json")
    told = figures(home / "whole.json")["teacher_forced"]
    assert (told["clips"], told["latent_steps"]) == (2 * 2, 13)


def test_the_dreams_are_those_of_the_library_under_the_same_options(measure: Script, home: Path) -> None:
    measure("--no-frechet", "--seed", 3, "--temperature", 0.5, "--json", "script.json")
    world = WorldModel.from_pretrained(home / "runs" / "tiny_world" / "world")
    clips = Clips(Store.open(home / "data" / "tiny_world"), "held_out", world.vqvae.clip_length(5))
    report = library(world, clips, 3, 2, Sampling(temperature=0.5), seed=3)
    assert figures(home / "script.json")["dreams"]["psnr_db"] == pytest.approx(report.psnr["imagined"])


# ---------------------------------------------------------------- evaluate_dreams


def test_tables_of_dreams_are_printed_and_everything_is_written_beside_the_world(replay: Script, home: Path) -> None:
    code, shown = replay()
    assert code == 0, shown
    found = figures(home / "runs" / "tiny_world" / "fidelity.json")
    assert found["settings"]["horizon"] == found["fidelity"]["horizon"] == 5
    assert {len(values) for values in found["fidelity"]["steps"].values()} == {5}
    assert {len(found["fidelity"]["returns"][of]) for of in ("real", "dream", "other_actions")} == {2}
    assert found["hardware"]["cores"] >= 1
    assert "split held_out: 2 episodes, 2 dream(s) of each" in shown
    for title in ("returns and lengths", "reward RMSE", "alive, dream", "Brier", "average precision"):
        assert title in shown
    assert "figures runs/tiny_world/fidelity.json" in shown


def test_the_figures_are_those_of_the_library_under_the_same_options(replay: Script, home: Path) -> None:
    code, shown = replay("--seed", 3, "--temperature", 0.5, "--json", "out/script.json")
    assert code == 0, shown
    world = WorldModel.from_pretrained(home / "runs" / "tiny_world" / "world")
    how = Sampling(temperature=0.5)
    store = Store.open(home / "data" / "tiny_world")
    report = evaluate_fidelity(world, store, horizon=5, context=2, samples=2, sampling=how, seed=3)
    assert figures(home / "out" / "script.json")["fidelity"] == report.to_json()


def test_a_picture_is_drawn_where_it_is_asked_for(replay: Script, home: Path) -> None:
    pytest.importorskip("matplotlib")
    code, shown = replay("--plot", "pictures/dreams.png")
    assert code == 0, shown
    assert "picture pictures/dreams.png" in shown
    assert np.asarray(Image.open(home / "pictures" / "dreams.png")).std() > 1


@pytest.mark.parametrize(("name", "begins"), [("x.pdf", b"%PDF"), ("x.SVG", b"<?xml"), ("x", b"\x89PNG")])
def test_a_plot_has_the_format_that_its_name_ends_in(tmp_path: Path, name: str, begins: bytes) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    fidelity_plot.save_figure(figure, tmp_path / "new" / name)
    assert (tmp_path / "new" / name).read_bytes().startswith(begins)


def test_a_plot_of_an_unknown_format_is_refused_before_anything_is_dreamt(replay: Script) -> None:
    pytest.importorskip("matplotlib")
    code, shown = replay("--plot", "never.gifx")
    assert code == 2
    assert "--plot never.gifx: plots end in" in shown
    assert ".png" in shown
    assert "split held_out" not in shown


def test_without_matplotlib_a_picture_is_refused_before_anything_is_dreamt(
    replay: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = lambda name: None if name == "matplotlib" else util.find_spec(name)  # noqa: E731
    monkeypatch.setattr(fidelity_plot, "find_spec", missing)
    code, shown = replay("--plot", "never.png")
    assert code == 2
    assert "pip install 'vqvideo[report]'" in shown
    assert "split held_out" not in shown


# ---------------------------------------------------------------- what cannot be measured

BOTH = [
    (("--horizon", 0), "--horizon is 0, expected at least 1"),
    (("--context", 4), "the prior looks back over 3"),
    (("--world", "nowhere"), "no world model in nowhere"),
    (("--store", "nowhere"), "nowhere"),
    (("--horizen", 3), "--horizon"),
]
OF_THE_WORLD = [
    (("--clips", 1), "--clips is 1, expected at least 2"),
    (("--teacher-steps", 1), "--teacher-steps is 1, expected at least 2"),
    (("--side", 8), "--side is 8, expected at least 32"),
    (("--horizon", 100), "here with --context 2 and --horizon 100"),
]
OF_DREAMS = [
    (("--horizon", 100), "the longest usable horizon is 11"),
]


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        *((evaluate_world, *case) for case in (*BOTH, *OF_THE_WORLD)),
        *((evaluate_dreams, *case) for case in (*BOTH, *OF_DREAMS)),
    ],
)
def test_what_cannot_be_measured_is_explained(
    run: Script, script: Any, arguments: tuple[object, ...], message: str
) -> None:
    code, shown = run(script, "--horizon", 3, *arguments)
    assert code == 2
    assert message in shown
